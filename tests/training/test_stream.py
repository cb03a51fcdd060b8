"""The order in which training sees its examples."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from fastbert.text import TextTokenizer
from fastbert.training import stream as training_stream
from fastbert.training.stream import ExampleStream, collator
from tests.tiny_data import LABELS, examples, tiny_tokenizer

ROWS, BATCH = 103, 8


@pytest.fixture
def tokenizer(tmp_path: Path) -> TextTokenizer:
    tiny_tokenizer().save_pretrained(tmp_path)
    return TextTokenizer.from_folder(tmp_path, 16)


def stream(tokenizer: TextTokenizer, seed: int | None = 7, epoch: int = 0) -> ExampleStream:
    texts = examples(ROWS)
    made = ExampleStream(lambda: texts, ROWS, tokenizer, batch_size=BATCH, seed=seed)
    made.set_epoch(epoch)
    return made


def rows_of(made: ExampleStream) -> list[int]:
    return [item["row"] for item in made]


def test_every_row_comes_once_an_epoch(tokenizer: TextTokenizer) -> None:
    assert Counter(rows_of(stream(tokenizer))) == Counter(range(ROWS))
    assert len(stream(tokenizer)) == ROWS


def test_the_order_depends_on_seed_and_epoch_alone(tokenizer: TextTokenizer) -> None:
    np.random.seed(1)
    torch.manual_seed(1)
    first = rows_of(stream(tokenizer))
    np.random.seed(2)
    torch.manual_seed(2)
    assert rows_of(stream(tokenizer)) == first
    assert rows_of(stream(tokenizer, epoch=1)) != first
    assert rows_of(stream(tokenizer, seed=8)) != first


def test_each_window_is_shuffled_by_itself_and_no_row_is_lost_between_them(
    tokenizer: TextTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = 40  # two and a half of them
    monkeypatch.setattr(training_stream, "WINDOW", window)
    rows = rows_of(stream(tokenizer))
    for start in range(0, ROWS, window):
        expected = list(range(start, min(start + window, ROWS)))
        assert sorted(rows[start : start + window]) == expected
        assert rows[start : start + window] != expected
    assert rows_of(stream(tokenizer)) == rows
    assert rows_of(stream(tokenizer, seed=None)) == list(range(ROWS))


def test_the_callers_texts_and_random_numbers_are_left_alone(tokenizer: TextTokenizer) -> None:
    # The authors' package shuffled the caller's lists and reseeded the global generator.
    texts = examples(ROWS)
    before, state = list(texts), torch.get_rng_state()
    list(ExampleStream(lambda: texts, ROWS, tokenizer, batch_size=BATCH, seed=1))
    assert texts == before
    assert torch.equal(torch.get_rng_state(), state)


def test_without_a_seed_the_order_of_the_source_is_kept(tokenizer: TextTokenizer) -> None:
    assert rows_of(stream(tokenizer, seed=None)) == list(range(ROWS))


def test_batches_hold_rows_of_similar_length(tokenizer: TextTokenizer) -> None:
    lengths = [len(item["tokens"].ids) for item in stream(tokenizer)]
    batches = [lengths[start : start + BATCH] for start in range(0, ROWS, BATCH)]
    spread = np.mean([max(batch) - min(batch) for batch in batches])
    assert spread < (max(lengths) - min(lengths)) / 4


def test_labels_become_their_numbers(tokenizer: TextTokenizer) -> None:
    texts = examples(5)
    numbers = {label: number for number, label in enumerate(LABELS)}
    made = ExampleStream(
        lambda: texts, 5, tokenizer, batch_size=2, seed=None, label_ids=numbers, first_row=20
    )
    batch = collator(tokenizer)(list(made))
    assert batch["labels"].tolist() == [LABELS.index(row.label or "") for row in texts]
    assert batch["row"].tolist() == [20, 21, 22, 23, 24]
    assert batch["input_ids"].shape == batch["attention_mask"].shape
