"""What the package runs on: processor, packages, and which runtimes compute in which precisions.

For bug reports and beside measurements. Nothing here names a file or a user, and nothing imports
torch: its version is read without it.
"""

import os
import platform
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from fastbert.extras import installed_versions
from fastbert.processor import processor_name, vector_extensions
from fastbert.running import PACKAGES as RUNTIME_PACKAGES
from fastbert.running import PRECISIONS

PACKAGES = (
    "fastbert-kit",
    "torch",
    "transformers",
    "tokenizers",
    "numpy",
    "onnx",
    "onnxruntime",
    "openvino",
    "nncf",
)


def versions() -> dict[str, str]:
    """Return the versions of the packages that are installed."""
    return installed_versions(PACKAGES)


def system_facts() -> dict[str, Any]:
    """Return what a bug report needs."""
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "processor": processor_name(),
        "extensions": vector_extensions(),
        "cores": os.cpu_count(),
        "versions": versions(),
        "runtimes": runtimes(),
    }


def runtimes() -> dict[str, list[str]]:
    """Return in which precisions each runtime that is installed can answer on this processor.

    One that is installed and cannot be imported has none.
    """
    found: dict[str, list[str]] = {"torch": ["fp32"]} if find_spec("torch") else {}
    for runtime, package in RUNTIME_PACKAGES.items():
        if find_spec(package):
            try:
                module = import_module(package)
            except ImportError:  # a library is missing, or was built for another system
                found[runtime] = []
                continue
            precisions = PRECISIONS[runtime]
            if runtime == "openvino" and "BF16" not in module.Core().get_property(
                "CPU", "OPTIMIZATION_CAPABILITIES"
            ):
                precisions = tuple(name for name in precisions if name != "bf16")
            found[runtime] = list(precisions)
    return found
