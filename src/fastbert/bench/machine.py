"""What a measurement ran on: the processor, how busy it was, the packages, the threads allowed."""

import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastbert.folder import installed_versions

logger = logging.getLogger(__name__)

FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
BF16_FLAGS = {"avx512_bf16", "amx_bf16"}
PACKAGES = (
    "fastbert-kit",
    "torch",
    "transformers",
    "tokenizers",
    "onnx",
    "onnxruntime",
    "openvino",
    "nncf",
)
BUSY = 0.5  # load for each core, above which times say little
CPU_INFO = Path("/proc/cpuinfo")


def machine() -> dict[str, Any]:
    """Return processor, cores, the instructions that matter here, load and Python."""
    processor, flags = _processor()
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "flags": [flag for flag in FLAGS if flag in flags],
        "load": os.getloadavg()[0],
        "system": platform.system(),
        "python": platform.python_version(),
    }


def _processor() -> tuple[str, set[str]]:
    """Return the processor's name and its instruction sets, as far as the system tells."""
    if not CPU_INFO.is_file():  # not Linux
        return platform.processor(), set()
    found: dict[str, str] = {}
    for line in CPU_INFO.read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        found.setdefault(name.strip(), value.strip())
    return found.get("model name", platform.machine()), set(found.get("flags", "").split())


def versions() -> dict[str, str]:
    """Return the versions of the packages that are installed."""
    return installed_versions(PACKAGES)


def warn_if_busy() -> None:
    """Warn where others compute on this machine: medians help, but only so far."""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > BUSY * cores:
        logger.warning("the machine is busy (load %.1f on %d cores): times vary", load, cores)


@contextmanager
def limited(threads: int) -> Iterator[None]:
    """Hold PyTorch and the tokenizers to so many threads; the other runtimes are told one by one.

    The tokenizers make their threads when they are first asked for many texts, and keep them: in a
    process that has tokenised already, only the limit of one thread has an effect.
    """
    variables = {
        "TOKENIZERS_PARALLELISM": "false" if threads == 1 else "true",
        "RAYON_NUM_THREADS": str(threads),
    }
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        with _limited_torch(threads):
            yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


@contextmanager
def _limited_torch(threads: int) -> Iterator[None]:
    if not find_spec("torch"):
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
