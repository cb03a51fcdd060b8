"""Models of transformers from files, strictly.

A weight that is missing, left over or of another shape is an error that names it, never a random
number.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import (
    CONFIG_MAPPING,
)

from fastbert.errors import FolderError
from fastbert.files.open_file import OpenFile
from fastbert.folder.names import (
    MODEL_CONFIG_FILE,
    TEACHER_FILE,
)
from fastbert.folder.read import ModelFolder

# Never a pickle, never code from the checkpoint, always a report of what did not match: tensors of
# another shape stand in it too, where transformers by itself would raise without naming them.
LOADING: dict[str, Any] = {
    "dtype": torch.float32,
    "use_safetensors": True,
    "trust_remote_code": False,
    "output_loading_info": True,
    "ignore_mismatched_sizes": True,
}


def model_from_folder(classes: Mapping[Any, Any], folder: ModelFolder) -> Any:
    """Build a model of the library from the open files of a folder."""
    family, weights = str(folder.model_config.get("model_type")), folder.files[TEACHER_FILE]
    try:
        config = CONFIG_MAPPING[family].from_dict(folder.model_config)
        model_class = classes[type(config)]
    except KeyError as error:
        raise FolderError(
            f"{folder.files[MODEL_CONFIG_FILE]}: transformers has no classifier of {family!r}"
        ) from error
    model, report = model_class.from_pretrained(
        None, config=config, state_dict=tensors_of(weights), **LOADING
    )
    _refuse_unmatched(weights, report)
    return model


def tensors_of(file: OpenFile) -> dict[str, Tensor]:
    """Return the tensors of a file, mapped into memory where they lie."""
    try:
        with safe_open(file.link, framework="pt") as tensors:
            names = tensors.keys()  # the handle itself is no mapping
            return {name: tensors.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise FolderError(f"{file}: cannot be read as safetensors: {error}") from error


def unmatched(report: Mapping[str, Any]) -> list[str]:
    """Return the tensors of the model that the checkpoint does not have, or not in their shape."""
    return sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])})


def _refuse_unmatched(path: OpenFile, report: Mapping[str, Any]) -> None:
    for what, keys in {
        "missing or of another shape": unmatched(report),
        "unexpected": sorted(report["unexpected_keys"]),
    }.items():
        if keys:
            raise FolderError(f"{path}: tensors {what}: {some_of(keys)}")


def refuse_non_finite(path: OpenFile, tensors: Mapping[str, Tensor]) -> None:
    """Refuse a tensor with NaN or infinite values."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise FolderError(f"{path}: tensor {name} holds NaN or infinite values")


def some_of(keys: Sequence[str]) -> str:
    """Return the first few names, for a message."""
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(keys[:3]) + more
