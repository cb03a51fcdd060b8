"""Tokens on disk: those of the tokenizer, and taken up only where they are whole and of these."""

from pathlib import Path

import pytest

from fastbert.text import TextTokenizer
from fastbert.training import tokens as tokens_module
from fastbert.training.tokens import TokenFile
from tests.tiny_data import examples

TEXTS = [(row.text, "word1 word2") for row in examples(23)]


def test_every_row_is_what_the_tokenizer_says(
    tokenizer: TextTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens_module, "TOKENISED_TOGETHER", 7)  # three times and a rest
    written = TokenFile.write(tmp_path / "tokens", iter(TEXTS), tokenizer)
    expected = tokenizer.encode(TEXTS)
    assert len(written) == 23
    assert written.lengths(5, 9).tolist() == [len(row) for row in expected[5:9]]
    for row, wanted in enumerate(expected):
        assert written[row].ids.tolist() == wanted.ids.tolist()
        assert written[row].type_ids.tolist() == wanted.type_ids.tolist()


def test_tokens_of_something_else_or_damaged_ones_are_not_taken_up(
    tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    folder = tmp_path / "tokens"
    assert TokenFile.load(folder, "these") is None
    TokenFile.write(folder, TEXTS, tokenizer, "these")
    found = TokenFile.load(folder, "these")
    assert found is not None
    assert found[3].ids.tolist() == tokenizer.encode(TEXTS)[3].ids.tolist()
    assert TokenFile.load(folder, "others") is None
    content = bytearray((folder / "ids.int32").read_bytes())
    content[8] ^= 1
    (folder / "ids.int32").write_bytes(content)
    assert TokenFile.load(folder, "these") is None
