"""Which runtime runs a model folder, and its backend."""

import logging
from importlib.util import find_spec
from typing import Any

from fastbert.errors import MissingExtraError
from fastbert.exits.engine import ExitBackend
from fastbert.folder.export import Export, has_export, open_export
from fastbert.folder.export_times import fastest, read_times
from fastbert.folder.read import ModelFolder
from fastbert.running import ANYHOW, PACKAGES, Running, Runtime
from fastbert.text import TokenBatch

logger = logging.getLogger(__name__)


def export_to_run(folder: ModelFolder, running: Running) -> Export | None:
    """Return the export that shall run, verified; None where torch shall.

    Args:
        folder: A verified model folder.
        running: How it shall be run. `auto` takes OpenVINO, else ONNX Runtime, else torch,
            whichever is exported and installed; of two exports that were measured beside each
            other on this processor the faster one.

    Raises:
        FolderError: The export asked for is missing, damaged, or made from other weights.
    """
    wanted = running.wanted
    if wanted in ("openvino", "onnx"):
        return open_export(folder, wanted)
    if wanted == "auto" and (ready := ready_exports(folder)):
        times = read_times(folder, ready)
        return open_export(folder, fastest(times) if len(times) == len(ready) else ready[0])
    return None


def ready_exports(folder: ModelFolder) -> list[Runtime]:
    """Return for which runtimes a folder is exported that are installed, in the order of `auto`."""
    ready = []
    for name, package in PACKAGES.items():
        if has_export(folder, name):
            if find_spec(package):
                ready.append(name)
            else:
                logger.warning(
                    "%s: holds an export for %s, which is not installed: "
                    "pip install 'fastbert-kit[%s]'", folder.path, name, name,
                )  # fmt: skip
    return ready


def open_backend(export: Export, running: Running = ANYHOW) -> ExitBackend[Any, TokenBatch]:
    """Return what runs an export.

    Args:
        export: A verified export.
        running: How it shall be run.

    Raises:
        ExportError: The processor does not compute in the export's precision.
        MissingExtraError: The runtime is not installed.
    """
    try:
        if export.runtime == "openvino":
            from fastbert.runtime.openvino_backend import OpenVinoBackend

            return OpenVinoBackend(export, running)
        from fastbert.runtime.onnx_backend import OnnxBackend

        return OnnxBackend(export, running)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{error.name} is needed to run {export.path}: "
            f"pip install 'fastbert-kit[{export.runtime}]'"
        ) from error
