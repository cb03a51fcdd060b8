import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastbert import answering
from fastbert.answering import Answering, encode, is_one
from fastbert.classifier import FastBertClassifier
from fastbert.exits.criteria import EntropyCriterion
from fastbert.text import TextTokenizer
from tests.tiny_data import examples
from tests.tiny_folder import save_model

TEXTS = [example.text for example in examples(50, seed=5)]
CRITERION = EntropyCriterion(0.7)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> FastBertClassifier:
    path = save_model(tmp_path_factory.mktemp("answering") / "model", "bert")
    return FastBertClassifier.from_pretrained(path)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> int:
    """Let a chunk be 12 texts, where batches are of 3."""
    monkeypatch.setattr(answering, "CHUNK_TEXTS", 12)
    monkeypatch.setattr(answering, "CHUNK_BATCHES", 4)
    return 12


def of(classifier: FastBertClassifier, workers: int) -> Answering:
    outputs = classifier.task.outputs
    return Answering(classifier.backend, classifier.tokenizer, outputs, workers)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("rows", [0, 1, 12, 24, 50])
def test_chunks_give_the_answers_of_all_texts_at_once_in_their_order(
    classifier: FastBertClassifier, workers: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = of(classifier, 1).classify(TEXTS[:rows], CRITERION, 3)
    monkeypatch.setattr(answering, "CHUNK_TEXTS", 12)
    monkeypatch.setattr(answering, "CHUNK_BATCHES", 4)
    parts = list(of(classifier, workers).each_chunk(iter(TEXTS[:rows]), CRITERION, 3))
    assert [len(part.exit_layer) for part in parts] == [
        min(12, rows - begin) for begin in range(0, rows, 12)
    ]
    found = of(classifier, workers).classify(iter(TEXTS[:rows]), CRITERION, 3)
    assert found.exit_layer.tolist() == whole.exit_layer.tolist()
    np.testing.assert_allclose(found.logits, whole.logits, atol=1e-6)
    assert found.logits.shape == (rows, 3)


def test_a_large_batch_makes_a_large_chunk(
    classifier: FastBertClassifier, small_chunks: int
) -> None:
    found = of(classifier, 1).each_chunk(TEXTS, CRITERION, 5)
    assert [len(part.exit_layer) for part in found] == [20, 20, 10]


@pytest.mark.parametrize("workers", [1, 3])
def test_no_more_texts_are_taken_than_a_chunk_and_the_batches_ahead(
    classifier: FastBertClassifier, workers: int, small_chunks: int
) -> None:
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield TEXTS[taken % len(TEXTS)]

    chunks = of(classifier, workers).each_chunk(endless(), CRITERION, 3)
    for number in range(1, 4):
        next(chunks)
        # The last batch of a chunk is known by the first of the next; workers go on meanwhile.
        ahead = -(-(2 * workers * 3 + 3) // small_chunks)
        assert taken <= (number + ahead) * small_chunks
    chunks.close()  # type: ignore[attr-defined]


def test_workers_stay_and_are_only_a_few_batches_ahead_across_chunks(
    classifier: FastBertClassifier, small_chunks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    several = of(classifier, 3)
    collate, collated = TextTokenizer.collate, 0
    threads: set[int] = set()

    def counted(self: TextTokenizer, rows: Any) -> Any:
        nonlocal collated
        collated += 1
        return collate(self, rows)

    def answer(batch: Any) -> int:
        threads.add(threading.get_ident())
        return int(batch.input_ids.sum())

    monkeypatch.setattr(TextTokenizer, "collate", counted)
    sums = [int(row.ids.sum()) for row in classifier.encode(TEXTS)]
    batches = several._in_chunks(TEXTS, small_chunks, 1)
    for taken, (rows, total) in enumerate(several.answered(batches, answer), start=1):
        assert total == sums[rows[0]]
        assert collated <= taken + 2 * 3
    assert taken == collated == 50
    assert len(threads) <= 3


def test_what_is_no_text_is_named_by_its_place_in_the_whole(
    classifier: FastBertClassifier, small_chunks: int
) -> None:
    texts: list[Any] = [*TEXTS[:30], 5]
    with pytest.raises(ValueError, match=r"^texts\[30\]: expected a text or a pair .*, got 5$"):
        of(classifier, 1).classify(iter(texts), CRITERION, 3)
    with pytest.raises(ValueError, match=r"^texts\[1\]: "):
        encode(classifier.tokenizer, ["word1", texts[30]])


def test_a_text_or_a_pair_is_one() -> None:
    assert is_one("word1")
    assert is_one(("word1", "word2"))
    for several in (["word1"], ("word1",), ("a", "b", "c"), ("a", 5), None, 5):
        assert not is_one(several)


def test_a_batch_takes_a_text_at_least(classifier: FastBertClassifier) -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        of(classifier, 1).classify(["word1"], CRITERION, 0)


def test_pairs_and_texts_may_be_mixed(classifier: FastBertClassifier, tmp_path: Path) -> None:
    mixed: list[Any] = ["word1", ("word2", "word3"), "lovely"]
    found = of(classifier, 1).classify(mixed, CRITERION, 2)
    alone = [of(classifier, 1).classify([text], CRITERION, 2).logits[0] for text in mixed]
    np.testing.assert_allclose(found.logits, alone, atol=1e-6)
