"""Model folders that nearly every test of this room starts from."""

from pathlib import Path

import pytest

from tests.folder.folders import fill, save


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save(tmp_path / "model")


@pytest.fixture
def unsealed(tmp_path: Path) -> Path:
    """Return a folder whose early_exit.json is still to be written."""
    staging = tmp_path / "unsealed"
    staging.mkdir()
    fill(staging)
    return staging
