"""What every test may rely on: no network, one thread, and the reference data if it is there."""

import importlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

# Set here, before anything imports torch or transformers, and inherited by commands under test.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"  # also torch's; results must not depend on the machine's cores
os.environ["TOKENIZERS_PARALLELISM"] = "false"  # tests start processes; a forked pool only warns

# While a module of ours is imported, jaxtyping's hook hides the bytecode of all that it imports in
# turn, and thousands of files are compiled. In a whole run the large packages are there before.
if "PYTEST_XDIST_WORKER" in os.environ:
    for package in (
        "accelerate",
        "matplotlib.pyplot",
        "onnx",
        "onnxruntime",
        "openvino",
        "scipy.stats",
        "sklearn.linear_model",
        "torch._dynamo",
        "transformers.modeling_utils",
        "typer",
    ):
        with suppress(ImportError):  # without an extra there are fewer
            importlib.import_module(package)

# The files that take longest, so that no process is left with one of them at the end.
SLOWEST = (
    "tests/export/test_pieces.py",
    "tests/test_readme.py",
    "tests/cli/test_shipping.py",
    "tests/cli/test_answering.py",
    "tests/cli/test_learning.py",
    "tests/test_classifier.py",
    "tests/calibration/test_solve.py",
    "tests/nn/test_backend.py",
    "tests/runtime/test_backends.py",
    "tests/folder/test_calibration.py",
    "tests/export/test_adaptive.py",
    "tests/report/test_page.py",
    "tests/test_replaced_folder.py",
    "tests/recipes/test_into.py",
    "tests/recipes/test_run.py",
    "tests/recipes/test_train.py",
    "tests/test_demo.py",
    "tests/folder/test_saves.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the slowest files first; with `--no-loadscope-reorder`, xdist keeps this order."""
    ranks = {name: rank for rank, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: ranks.get(item.nodeid.partition("::")[0], len(SLOWEST)))


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
        patch.setattr("fastbert.export.export.piece_models", traced_once)
        yield


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a disk of one MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root; the simulated full disk is tested anyway")
    made = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=1m", "none", str(place)], capture_output=True
    )
    if made.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {made.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)
