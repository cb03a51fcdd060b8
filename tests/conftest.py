"""What every test may rely on: no network, one thread, and the reference data if it is there."""

import os
from collections.abc import Iterator
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


@pytest.fixture(scope="session", autouse=True)
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Name the folder in which all processes of this run keep what `traced_once` traced."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "traces"
    folder.mkdir(exist_ok=True)
    os.environ["TRACES_OF_TESTS"] = str(folder)
    return folder


@pytest.fixture(scope="module")
def commands_trace_once() -> Iterator[None]:
    """Let `fastbert export` and `fastbert bench` take the trace that another test made."""
    from tests.exported import traced_once  # imports all that an export needs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fastbert.export.export.stage_models", traced_once)
        yield
