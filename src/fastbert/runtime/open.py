"""Which runtime runs a model folder, and its backend."""

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

from fastbert.errors import MissingExtraError
from fastbert.exits.engine import ExitBackend
from fastbert.folder.export import Export, has_export, open_export
from fastbert.folder.read import ModelFolder
from fastbert.running import PACKAGES, RuntimeName
from fastbert.text import TokenBatch

logger = logging.getLogger(__name__)


def export_to_run(folder: ModelFolder, runtime: RuntimeName) -> Export | None:
    """Return the export that shall run, verified; None where torch shall.

    Args:
        folder: A verified model folder.
        runtime: A runtime by name, or `auto`: OpenVINO, else ONNX Runtime, else torch, whichever
            is exported and installed.

    Raises:
        FolderError: The export asked for is missing, damaged, or made from other weights.
        ValueError: There is no such runtime.
    """
    if runtime not in get_args(RuntimeName):
        raise ValueError(f"runtime must be one of {get_args(RuntimeName)}, got {runtime!r}")
    if runtime in ("openvino", "onnx"):
        return open_export(folder, runtime)
    if runtime == "auto":
        for name, package in PACKAGES.items():
            if has_export(folder, name):
                if find_spec(package):
                    return open_export(folder, name)
                logger.warning(
                    "%s: holds an export for %s, which is not installed: "
                    "pip install 'fastbert-kit[%s]'", folder.path, name, name,
                )  # fmt: skip
    return None


def open_backend(
    export: Export,
    threads: int | None = None,
    workers: int = 1,
    cache_folder: Path | None = None,
) -> ExitBackend[Any, TokenBatch]:
    """Return what runs an export.

    Args:
        export: A verified export.
        threads: Processor threads of one step.
        workers: How many steps shall run at a time.
        cache_folder: Where OpenVINO keeps compiled models for the next start.

    Raises:
        ExportError: The processor does not compute in the export's precision.
        MissingExtraError: The runtime is not installed.
    """
    try:
        if export.runtime == "openvino":
            from fastbert.runtime.openvino_backend import OpenVinoBackend

            return OpenVinoBackend(export, threads, workers, cache_folder)
        from fastbert.runtime.onnx_backend import OnnxBackend

        return OnnxBackend(export, threads)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{error.name} is needed to run {export.path}: "
            f"pip install 'fastbert-kit[{export.runtime}]'"
        ) from error
