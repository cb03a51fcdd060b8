"""What a benchmark ran on, and the reference data it reads."""

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

SHARED = Path(__file__).parents[2] / "shared"
RESULTS = Path(__file__).parent / "results"
ENCODER = SHARED / "models" / "e5-small-12l-en-zh"


def machine() -> dict[str, Any]:
    """Return processor, threads, load and versions, as every result records them."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    flags = next(line for line in info.splitlines() if line.startswith("flags")).split()
    wanted = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")
    return {
        "processor": next(
            line.split(":")[1].strip() for line in info.splitlines() if "model name" in line
        ),
        "cores": os.cpu_count(),
        "flags": [flag for flag in wanted if flag in flags],
        "load": os.getloadavg()[0],
        "torch_threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {
            name: version(name)
            for name in ("fastbert-kit", "torch", "transformers", "tokenizers", "accelerate")
        },
    }


def write_result(name: str, result: dict[str, Any]) -> None:
    """Write a result with the machine it came from to `results/NAME.json`."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **result}, indent=1) + "\n", encoding="utf-8")
    print(path)


def require_shared() -> None:
    """Stop where the reference data and models are not there."""
    if not SHARED.is_dir():
        raise SystemExit(
            f"skipped: needs the data and models in {SHARED.name}/ beside the checkout"
        )
