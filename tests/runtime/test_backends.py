"""Every exported backend answers as torch does, in any batch, in any thread."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastbert.classifier import FastBertClassifier
from fastbert.exits.criteria import EntropyCriterion
from tests.exported import KINDS
from tests.tiny_data import examples
from tests.tiny_folder import SPEEDS, WORDS

TEXTS = [example.text for example in examples(50, seed=9)]
FP32 = [kind for kind in KINDS if kind[1] == "fp32"]

words = st.lists(st.sampled_from(WORDS), max_size=25).map(" ".join)
texts_and_pairs = st.lists(words | st.tuples(words, words), min_size=1, max_size=40)


@pytest.fixture(scope="module")
def of_torch(folders: dict[str, Path]) -> FastBertClassifier:
    return FastBertClassifier.from_pretrained(folders["fp32"], runtime="torch")


@pytest.mark.parametrize(("runtime", "tolerance"), [("onnx", 0.0), ("openvino", 1e-5)])
def test_in_int8_an_answer_is_as_if_a_text_were_alone(
    folders: dict[str, Path], runtime: Any, tolerance: float
) -> None:
    exported = FastBertClassifier.from_pretrained(folders["int8"], runtime=runtime, threads=1)
    full = EntropyCriterion(0.0)
    together = exported.classify(TEXTS, full, 32).logits
    alone = [exported.classify([text], full).logits[0] for text in TEXTS]
    assert np.abs(together - np.stack(alone)).max() <= tolerance


@pytest.mark.parametrize("kind", FP32, ids="-".join)
def test_fp32_answers_as_torch_does(
    kind: Any, folders: dict[str, Path], of_torch: FastBertClassifier
) -> None:
    exported = FastBertClassifier.from_pretrained(folders["fp32"], runtime=kind[0])
    texts: list[Any] = [*TEXTS, *zip(TEXTS[:7], TEXTS[7:14], strict=True)]
    layers = set()
    for speed in SPEEDS:
        ours = exported.classify(texts, EntropyCriterion(speed), 16)
        theirs = of_torch.classify(texts, EntropyCriterion(speed), 16)
        assert ours.exit_layer.tolist() == theirs.exit_layer.tolist()
        np.testing.assert_allclose(ours.logits, theirs.logits, atol=2e-5)
        layers |= set(ours.exit_layer.tolist())
    assert len(layers) >= 3
    np.testing.assert_allclose(
        exported.record(texts).recorded, of_torch.record(texts).recorded, atol=2e-5
    )


@settings(max_examples=15, deadline=None)
@given(texts_and_pairs, st.integers(1, 40), st.sampled_from(SPEEDS))
def test_a_text_is_answered_as_if_it_were_alone(
    exported: FastBertClassifier,
    texts: list[str | tuple[str, str]],
    batch_size: int,
    speed: float,
) -> None:
    together = exported.classify(texts, EntropyCriterion(speed), batch_size)
    for row, text in enumerate(texts):
        alone = exported.classify([text], EntropyCriterion(speed))
        assert together.exit_layer[row] == alone.exit_layer[0]
        np.testing.assert_allclose(together.logits[row], alone.logits[0], atol=1e-5)


def test_workers_change_nothing(folders: dict[str, Path], exported: FastBertClassifier) -> None:
    backend = exported.backend
    several = FastBertClassifier(backend, exported.tokenizer, exported.folder, workers=3)
    for criterion in (EntropyCriterion(0.66), EntropyCriterion(0.0)):
        ours, theirs = (
            each.classify(TEXTS, criterion, batch_size=4) for each in (several, exported)
        )
        assert np.array_equal(ours.exit_layer, theirs.exit_layer)
        np.testing.assert_allclose(ours.logits, theirs.logits, atol=1e-5)
    assert several.classify([], EntropyCriterion(0.5)).exit_layer.tolist() == []
    np.testing.assert_allclose(
        several.record(TEXTS, 7).recorded, exported.record(TEXTS, 7).recorded, atol=1e-5
    )


def test_one_classifier_serves_many_threads(exported: FastBertClassifier) -> None:
    alone = [exported.predict(text, 0.66) for text in TEXTS]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda text: exported.predict(text, 0.66), TEXTS))
    assert [row.exit_layer for row in together] == [row.exit_layer for row in alone]
    assert [row.label for row in together] == [row.label for row in alone]
