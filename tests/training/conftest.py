"""A tokenizer of tiny texts."""

from pathlib import Path

import pytest

from fastbert.text import TextTokenizer
from tests.tiny_data import tiny_tokenizer


@pytest.fixture
def tokenizer(tmp_path: Path) -> TextTokenizer:
    tiny_tokenizer().save_pretrained(tmp_path / "tokenizer")
    return TextTokenizer.from_folder(tmp_path / "tokenizer", 16)
