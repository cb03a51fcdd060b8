"""What every test may rely on: no network, one thread, and the reference data if it is there."""

import os
from pathlib import Path

import pytest

# Set here, before anything imports torch or transformers, and inherited by commands under test.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"  # also torch's; results must not depend on the machine's cores
os.environ["TOKENIZERS_PARALLELISM"] = "false"  # tests start processes; a forked pool only warns


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of data and models that may lie beside the checkout."""
    folder = Path(__file__).parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("needs the data and models in ../shared, which is not there")
    return folder
