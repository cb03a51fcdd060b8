"""The files of a run, and a run that nothing stopped."""

from pathlib import Path

import pytest

from fastbert.text import TextTokenizer
from tests.recipes.runs import run, write_files
from tests.tiny_data import tiny_tokenizer


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    return write_files(tmp_path)


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the model folder of a run on `files` that nothing stopped."""
    files = write_files(tmp_path_factory.mktemp("uninterrupted"))
    run(files)
    return files["output"]


@pytest.fixture
def tokenizer(tmp_path: Path) -> TextTokenizer:
    tiny_tokenizer().save_pretrained(tmp_path / "tokenizer")
    return TextTokenizer.from_folder(tmp_path / "tokenizer", 16)
