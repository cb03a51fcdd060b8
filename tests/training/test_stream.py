"""The order in which training sees its examples."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from fastbert.text import TextTokenizer
from fastbert.training import stream as training_stream
from fastbert.training.stream import TextStream, collator
from fastbert.training.tokens import TokenFile
from tests.tiny_data import examples

ROWS, BATCH = 103, 8


@pytest.fixture
def tokens(tokenizer: TextTokenizer, tmp_path: Path) -> TokenFile:
    return TokenFile.write(tmp_path / "tokens", [row.text for row in examples(ROWS)], tokenizer)


def stream(tokens: TokenFile, seed: int | None = 7, epoch: int = 0) -> TextStream:
    made = TextStream(tokens, batch_size=BATCH, seed=seed)
    made.set_epoch(epoch)
    return made


def rows_of(made: TextStream) -> list[int]:
    return [item["row"] for item in made]


def test_every_row_comes_once_an_epoch(tokens: TokenFile) -> None:
    assert Counter(rows_of(stream(tokens))) == Counter(range(ROWS))
    assert len(stream(tokens)) == ROWS


def test_the_order_depends_on_seed_and_epoch_alone(tokens: TokenFile) -> None:
    np.random.seed(1)
    torch.manual_seed(1)
    first = rows_of(stream(tokens))
    np.random.seed(2)
    torch.manual_seed(2)
    assert rows_of(stream(tokens)) == first
    assert rows_of(stream(tokens, epoch=1)) != first
    assert rows_of(stream(tokens, seed=8)) != first


def test_each_window_is_shuffled_by_itself_and_no_row_is_lost_between_them(
    tokens: TokenFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = 40  # two and a half of them
    monkeypatch.setattr(training_stream, "WINDOW", window)
    rows = rows_of(stream(tokens))
    for start in range(0, ROWS, window):
        expected = list(range(start, min(start + window, ROWS)))
        assert sorted(rows[start : start + window]) == expected
        assert rows[start : start + window] != expected
    assert rows_of(stream(tokens)) == rows
    assert rows_of(stream(tokens, seed=None)) == list(range(ROWS))


def test_the_global_random_numbers_are_left_alone(tokens: TokenFile) -> None:
    # The authors' package reseeded the global generator.
    state = torch.get_rng_state()
    list(stream(tokens))
    assert torch.equal(torch.get_rng_state(), state)


def test_without_a_seed_the_order_of_the_source_is_kept(tokens: TokenFile) -> None:
    assert rows_of(stream(tokens, seed=None)) == list(range(ROWS))


def test_batches_hold_rows_of_similar_length(tokens: TokenFile) -> None:
    lengths = [len(item["tokens"].ids) for item in stream(tokens)]
    batches = [lengths[start : start + BATCH] for start in range(0, ROWS, BATCH)]
    spread = np.mean([max(batch) - min(batch) for batch in batches])
    assert spread < (max(lengths) - min(lengths)) / 4


def test_labelled_rows_are_read_alone_where_that_is_asked_for(
    tokenizer: TextTokenizer, tokens: TokenFile
) -> None:
    made = TextStream(
        tokens,
        batch_size=2,
        seed=None,
        labels=np.array([2, 0, 1, 1, 0]),
        labelled_alone=True,
        first_row=20,
    )
    batch = collator(tokenizer)(list(made))
    assert batch["labels"].tolist() == [2, 0, 1, 1, 0]
    assert batch["row"].tolist() == [20, 21, 22, 23, 24]
    expected = tokenizer.collate(tokenizer.encode([row.text for row in examples(ROWS)[:5]]))
    assert batch["input_ids"].tolist() == expected.input_ids.tolist()
    assert batch["attention_mask"].tolist() == expected.attention_mask.tolist()


def test_rows_without_a_label_come_beside_those_with_one(
    tokenizer: TextTokenizer, tokens: TokenFile
) -> None:
    made = TextStream(tokens, batch_size=2, seed=None, labels=np.array([2, 1, 2]))
    batch = collator(tokenizer)(list(made)[:5])
    assert batch["labelled"].tolist() == [True, True, True, False, False]
    assert batch["labels"][:3].tolist() == [2, 1, 2]
    assert len(made) == ROWS
