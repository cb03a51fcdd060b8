"""The files of a run, and a run that nothing stopped."""

from pathlib import Path

import pytest

from tests.recipes.runs import run, write_files


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    return write_files(tmp_path)


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the model folder of a run on `files` that nothing stopped."""
    files = write_files(tmp_path_factory.mktemp("uninterrupted"))
    run(files)
    return files["output"]
