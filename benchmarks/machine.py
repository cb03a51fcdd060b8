"""What a benchmark ran on, and the reference data it reads."""

import json
from pathlib import Path
from typing import Any

import torch

from fastbert.bench import machine as facts
from fastbert.extras import installed_versions

SHARED = Path(__file__).parents[2] / "shared"
RESULTS = Path(__file__).parent / "results"
ENCODER = SHARED / "models" / "e5-small-12l-en-zh"


def machine() -> dict[str, Any]:
    """Return processor, threads, load and versions, as every result records them."""
    return facts.machine() | {
        "torch_threads": torch.get_num_threads(),
        "versions": installed_versions(
            ("fastbert-kit", "torch", "transformers", "tokenizers", "accelerate")
        ),
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
