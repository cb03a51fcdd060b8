"""What a measurement ran on: the processor, how busy it was, the threads allowed."""

import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from fastbert.processor import processor_name, vector_extensions

logger = logging.getLogger(__name__)

BF16_FLAGS = {"avx512_bf16", "amx_bf16"}
BUSY = 0.5  # load for each core, above which times say little


def machine() -> dict[str, Any]:
    """Return processor, cores, the instructions that matter here, load and Python."""
    return {
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "flags": vector_extensions(),
        "load": os.getloadavg()[0],
        "system": platform.system(),
        "python": platform.python_version(),
    }


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
