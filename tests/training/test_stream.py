"""The order in which training sees its examples."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from fastbert.text import TextEncoder
from fastbert.training import stream as training_stream
from fastbert.training.stream import ExampleStream, collator
from tests.tiny_data import LABELS, examples, tiny_tokenizer

ROWS, BATCH = 103, 8


@pytest.fixture
def encoder(tmp_path: Path) -> TextEncoder:
    tiny_tokenizer().save_pretrained(tmp_path)
    return TextEncoder.from_folder(tmp_path, 16)


def stream(encoder: TextEncoder, seed: int | None = 7, epoch: int = 0) -> ExampleStream:
    texts = examples(ROWS)
    made = ExampleStream(lambda: texts, ROWS, encoder, batch_size=BATCH, seed=seed)
    made.set_epoch(epoch)
    return made


def rows_of(made: ExampleStream) -> list[int]:
    return [item["row"] for item in made]


def test_every_row_comes_once_an_epoch(encoder: TextEncoder) -> None:
    assert Counter(rows_of(stream(encoder))) == Counter(range(ROWS))
    assert len(stream(encoder)) == ROWS


def test_the_order_depends_on_seed_and_epoch_alone(encoder: TextEncoder) -> None:
    np.random.seed(1)
    torch.manual_seed(1)
    first = rows_of(stream(encoder))
    np.random.seed(2)
    torch.manual_seed(2)
    assert rows_of(stream(encoder)) == first
    assert rows_of(stream(encoder, epoch=1)) != first
    assert rows_of(stream(encoder, seed=8)) != first


def test_each_window_is_shuffled_by_itself_and_no_row_is_lost_between_them(
    encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = 40  # two and a half of them
    monkeypatch.setattr(training_stream, "WINDOW", window)
    rows = rows_of(stream(encoder))
    for start in range(0, ROWS, window):
        expected = list(range(start, min(start + window, ROWS)))
        assert sorted(rows[start : start + window]) == expected
        assert rows[start : start + window] != expected
    assert rows_of(stream(encoder)) == rows
    assert rows_of(stream(encoder, seed=None)) == list(range(ROWS))


def test_the_callers_texts_and_random_numbers_are_left_alone(encoder: TextEncoder) -> None:
    # The authors' package shuffled the caller's lists and reseeded the global generator.
    texts = examples(ROWS)
    before, state = list(texts), torch.get_rng_state()
    list(ExampleStream(lambda: texts, ROWS, encoder, batch_size=BATCH, seed=1))
    assert texts == before
    assert torch.equal(torch.get_rng_state(), state)


def test_without_a_seed_the_order_of_the_source_is_kept(encoder: TextEncoder) -> None:
    assert rows_of(stream(encoder, seed=None)) == list(range(ROWS))


def test_batches_hold_rows_of_similar_length(encoder: TextEncoder) -> None:
    lengths = [len(item["tokens"].ids) for item in stream(encoder)]
    batches = [lengths[start : start + BATCH] for start in range(0, ROWS, BATCH)]
    spread = np.mean([max(batch) - min(batch) for batch in batches])
    assert spread < (max(lengths) - min(lengths)) / 4


def test_labels_become_their_numbers(encoder: TextEncoder) -> None:
    texts = examples(5)
    numbers = {label: number for number, label in enumerate(LABELS)}
    made = ExampleStream(
        lambda: texts, 5, encoder, batch_size=2, seed=None, label_ids=numbers, first_row=20
    )
    batch = collator(encoder)(list(made))
    assert batch["labels"].tolist() == [LABELS.index(row.label or "") for row in texts]
    assert batch["row"].tolist() == [20, 21, 22, 23, 24]
    assert batch["input_ids"].shape == batch["attention_mask"].shape
