"""The classifier people use: exact in batches, in the caller's order, equal to the plain model."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from fastbert.classifier import FastBertClassifier, Prediction
from fastbert.criteria import EntropyCriterion, uncertainty
from fastbert.errors import FolderError
from fastbert.folder import EarlyExitConfig, StudentLayout, open_folder, seal, staged_folder
from fastbert.nn.backend import TorchBackend, batch_tensors
from fastbert.nn.model import FastBertModel
from fastbert.text import TextEncoder
from tests.tiny import FAMILIES, tiny_classifier
from tests.tiny_data import FILLERS, LABELS, SIGNALS, examples, tiny_tokenizer

MAX_LENGTH = 20
WORDS = [*SIGNALS.values(), *FILLERS]
SPEEDS = (0.0, 0.5, 0.66, 0.74, 0.86)  # where the random students are in two minds


def save_model(folder: Path, family: str, pooling: Any = "first") -> Path:
    """Write a model folder with random weights, whose students disagree and doubt differently."""
    names = dict(enumerate(LABELS))
    teacher = tiny_classifier(
        family,
        id2label=names,
        label2id={label: index for index, label in names.items()},
        pad_token_id=0,  # the tokeniser's
        **(
            {"type_vocab_size": 2} if FAMILIES[family].get("type_vocab_size") == 1 else {}
        ),  # likewise
    )
    layout = StudentLayout(pooling, 8, 2)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(4)
        model = FastBertModel(teacher, layout)
        for name, weight in model.students.named_parameters():
            if name.endswith("classify.weight"):
                weight.mul_(12)  # otherwise no student is ever sure
    with staged_folder(folder) as stage:
        model.save(stage)
        tiny_tokenizer().save_pretrained(stage)
        seal(stage, EarlyExitConfig("pretrained", LABELS, model.num_exits, MAX_LENGTH, layout))
    return folder


@pytest.fixture(scope="module", params=["first", "mean"])
def classifier(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> FastBertClassifier:
    folder = tmp_path_factory.mktemp("model") / "model"
    return FastBertClassifier.from_pretrained(save_model(folder, "bert", request.param))


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def of_any_family(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> FastBertClassifier:
    folder = tmp_path_factory.mktemp(request.param) / "model"
    return FastBertClassifier.from_pretrained(save_model(folder, request.param))


words = st.lists(st.sampled_from(WORDS), max_size=25).map(" ".join)
texts_and_pairs = st.lists(words | st.tuples(words, words), min_size=1, max_size=64)


def assert_same(together: Prediction, alone: Prediction) -> None:
    assert (together.label, together.exit_layer) == (alone.label, alone.exit_layer)
    assert together.probabilities == pytest.approx(alone.probabilities, abs=1e-5)
    assert together.uncertainty == pytest.approx(alone.uncertainty, abs=1e-4)


@settings(max_examples=40, deadline=None)
@given(texts_and_pairs, st.integers(1, 64), st.sampled_from(SPEEDS))
def test_a_text_is_answered_as_if_it_were_alone(
    classifier: FastBertClassifier,
    texts: list[str | tuple[str, str]],
    batch_size: int,
    speed: float,
) -> None:
    together = classifier.predict(texts, speed, batch_size)
    for text, prediction in zip(texts, together, strict=True):
        alone = classifier.predict(text, speed)
        assert isinstance(alone, Prediction)
        assert_same(prediction, alone)


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(23)))
def test_answers_come_in_the_callers_order(
    classifier: FastBertClassifier, order: list[int]
) -> None:
    texts = [example.text for example in examples(23, seed=6)]
    straight = classifier.predict(texts, 0.7, 5)
    shuffled = classifier.predict([texts[row] for row in order], 0.7, 5)
    for row, prediction in zip(order, shuffled, strict=True):
        assert_same(prediction, straight[row])


def test_every_family_answers_in_batches_as_it_does_alone(
    of_any_family: FastBertClassifier,
) -> None:
    texts: list[Any] = [example.text for example in examples(30, seed=8)]
    texts += list(zip(texts[:7], texts[7:14], strict=True))
    for speed in SPEEDS[1::2]:
        for text, prediction in zip(texts, of_any_family.predict(texts, speed, 16), strict=True):
            assert_same(prediction, of_any_family.predict(text, speed))


def test_texts_leave_at_different_layers(classifier: FastBertClassifier) -> None:
    # Otherwise the tests of exactness above would compare little.
    texts = [example.text for example in examples(60, seed=3)]
    layers = {row.exit_layer for speed in SPEEDS for row in classifier.predict(texts, speed)}
    assert len(layers) >= 3


def test_speed_zero_is_the_plain_model(of_any_family: FastBertClassifier) -> None:
    texts = [example.text for example in examples(20, seed=2)]
    plain = AutoModelForSequenceClassification.from_pretrained(of_any_family.folder.path).eval()
    batch = of_any_family.encoder.collate(of_any_family.encode(texts))
    with torch.no_grad():
        expected = plain(**batch_tensors(batch)).logits.softmax(-1).numpy()

    assert of_any_family.predict_proba(texts, speed=0.0) == pytest.approx(expected, abs=1e-6)
    assert {p.exit_layer for p in of_any_family.predict(texts, 0.0)} == {of_any_family.num_layers}


def test_one_text_gives_one_prediction_and_a_list_gives_a_list(
    classifier: FastBertClassifier,
) -> None:
    assert isinstance(classifier.predict("word1 lovely"), Prediction)
    assert isinstance(classifier.predict(("word1", "lovely")), Prediction)
    assert len(classifier.predict(["word1", "lovely"])) == 2
    assert len(classifier.predict(("word1", "lovely", "word2"))) == 3
    mixed: list[str | tuple[str, str]] = ["word1", ("word2", "word3")]
    assert len(classifier.predict(iter(mixed))) == 2
    assert classifier.predict([]) == []
    assert classifier.predict_proba([]).shape == (0, len(LABELS))


def test_a_prediction_agrees_with_itself(classifier: FastBertClassifier) -> None:
    texts = [example.text for example in examples(12)]
    proba = classifier.predict_proba(texts, 0.6)
    for prediction, row in zip(classifier.predict(texts, 0.6), proba, strict=True):
        assert tuple(prediction.probabilities) == LABELS
        assert list(prediction.probabilities.values()) == pytest.approx(row)
        assert sum(prediction.probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert prediction.score == max(prediction.probabilities.values())
        assert prediction.uncertainty == pytest.approx(float(uncertainty(np.log(row))), abs=1e-4)


def test_an_empty_text_is_classified(classifier: FastBertClassifier) -> None:
    assert classifier.predict("").label in LABELS


@pytest.mark.parametrize("odd", [None, 7, ("one", "two", "three"), ["one", "two"], b"bytes"])
def test_what_is_no_text_is_refused_by_its_place(
    classifier: FastBertClassifier, odd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Otherwise the shape checks of the tests refuse it first.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=r"texts\[1\]"):
        classifier.predict(["fine", odd])


@pytest.mark.parametrize(("speed", "batch_size"), [(-0.1, 8), (1.5, 8), (0.5, 0)])
def test_arguments_out_of_range_are_refused(
    classifier: FastBertClassifier, speed: float, batch_size: int
) -> None:
    with pytest.raises(ValueError, match="must be"):
        classifier.predict(["word1"], speed, batch_size)


def test_threads_do_not_disturb_each_other(classifier: FastBertClassifier) -> None:
    texts = [example.text for example in examples(40)]
    expected = {speed: classifier.predict(texts, speed, 4) for speed in (0.0, 0.5, 0.9)}

    def ask(speed: float) -> bool:
        return classifier.predict(texts, speed, 4) == expected[speed]

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(ask, [0.0, 0.5, 0.9] * 8))


def test_recorded_exits_replay_what_predict_answers(classifier: FastBertClassifier) -> None:
    texts = [example.text for example in examples(40)]
    replayed = classifier.record(texts).replay(EntropyCriterion(0.7))
    live = classifier.classify(texts, EntropyCriterion(0.7))
    assert np.array_equal(replayed.exit_layer, live.exit_layer)
    assert replayed.logits == pytest.approx(live.logits, abs=1e-5)


def test_a_saved_copy_answers_bit_equal(classifier: FastBertClassifier, tmp_path: Path) -> None:
    texts = [example.text for example in examples(10)]
    classifier.save_pretrained(tmp_path / "copy")
    copy = FastBertClassifier.from_pretrained(tmp_path / "copy")
    assert np.array_equal(copy.predict_proba(texts), classifier.predict_proba(texts))


def test_what_is_pushed_to_the_hub_is_the_whole_folder(
    classifier: FastBertClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed: dict[str, Any] = {}

    class Hub:
        def __init__(self, token: str | None) -> None:
            pushed["token"] = token

        def create_repo(self, repo_id: str, private: bool | None, exist_ok: bool) -> Any:
            return type("Url", (), {"repo_id": f"me/{repo_id}"})

        def upload_folder(self, repo_id: str, folder_path: Path, commit_message: str) -> Any:
            pushed["labels"] = open_folder(folder_path).config.labels
            return type("Commit", (), {"commit_url": f"https://hub/{repo_id}"})

    monkeypatch.setattr("fastbert.classifier.HfApi", Hub)
    assert classifier.push_to_hub("reviews", token="secret") == "https://hub/me/reviews"
    assert pushed == {"token": "secret", "labels": LABELS}


def test_a_hub_name_that_cannot_be_had_is_one_clear_line() -> None:
    with pytest.raises(FolderError, match=r"^nobody/nothing: no such folder") as caught:
        FastBertClassifier.from_pretrained("nobody/nothing")
    assert "\n" not in str(caught.value)


class CountingTorch(TorchBackend):
    """Counts the copies between host and device that the loop asks for."""

    copies = 0

    def logits(self, state: Any) -> np.ndarray:
        self.copies += 1
        return super().logits(state)


def test_each_exit_costs_one_copy_from_the_device(classifier: FastBertClassifier) -> None:
    # FastBERT read GPU scalars row by row to find out who stays.
    assert isinstance(classifier.backend, TorchBackend)
    backend = CountingTorch(classifier.backend.model)
    counting = FastBertClassifier(backend, classifier.encoder, classifier.folder)
    counting.predict([example.text for example in examples(30)], 0.5, 30)
    assert backend.copies <= classifier.num_layers


def test_every_layer_and_student_is_an_object_of_its_own(classifier: FastBertClassifier) -> None:
    # bert-squeeze built `[layer] * n`: all layers were one.
    assert isinstance(classifier.backend, TorchBackend)
    model = classifier.backend.model
    assert len({id(layer) for layer in model.backbone.layers}) == classifier.num_layers
    assert len({id(head) for head in model.students}) == classifier.num_layers - 1


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    return save_model(tmp_path / "model", "bert")


def reseal(folder: Path) -> None:
    seal(folder, EarlyExitConfig.read(folder / "early_exit.json"))


@pytest.mark.parametrize("file", ["model.safetensors", "students.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "unexpected", "mismatched", "nan"])
def test_tensors_that_do_not_fit_are_named_even_under_a_fresh_seal(
    damaged: Path, file: str, damage: str
) -> None:
    tensors = load_file(damaged / file)
    name = next(key for key in sorted(tensors) if key.endswith("dense.weight"))
    if damage == "missing":
        del tensors[name]
    elif damage == "unexpected":
        name = "students.0.extra"
        tensors[name] = torch.zeros(2)
    elif damage == "mismatched":
        tensors[name] = torch.zeros(3, 5)
    else:
        tensors[name][0, 0] = float("nan")
    save_file(tensors, damaged / file, metadata={"format": "pt"})
    reseal(damaged)
    with pytest.raises(FolderError, match=name.replace(".", r"\.")) as caught:
        FastBertClassifier.from_pretrained(damaged)
    assert file in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_encoder_is_the_folders(classifier: FastBertClassifier) -> None:
    ours = TextEncoder.from_folder(classifier.folder.path, MAX_LENGTH).encode(["word1 lovely"])
    assert classifier.encode(["word1 lovely"])[0].ids.tolist() == ours[0].ids.tolist()
