"""FastBERT: classifiers that stop reading layers as soon as they are sure.

What is exported here is loaded when it is first asked for: `import fastbert` stays light and
imports neither torch nor transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastbert.errors import (
    BackboneError,
    CalibrationError,
    DataError,
    FastBertError,
    FolderError,
    MissingExtraError,
    TrainingError,
)

if TYPE_CHECKING:
    from fastbert.classifier import FastBertClassifier, Prediction
    from fastbert.evaluation import evaluate
    from fastbert.recipes import distill, train

    __version__: str

__all__ = [
    "BackboneError",
    "CalibrationError",
    "DataError",
    "FastBertClassifier",
    "FastBertError",
    "FolderError",
    "MissingExtraError",
    "Prediction",
    "TrainingError",
    "__version__",
    "distill",
    "evaluate",
    "train",
]

_LOADED_WHEN_ASKED = {
    "FastBertClassifier": "fastbert.classifier",
    "Prediction": "fastbert.classifier",
    "distill": "fastbert.recipes",
    "evaluate": "fastbert.evaluation",
    "train": "fastbert.recipes",
}


def __getattr__(name: str) -> Any:
    """Load an export; what needs a missing install raises a `MissingExtraError`."""
    if name == "__version__":
        from importlib.metadata import version

        return version("fastbert-kit")
    if name not in _LOADED_WHEN_ASKED:
        raise AttributeError(f"module 'fastbert' has no attribute {name!r}")
    try:
        return getattr(import_module(_LOADED_WHEN_ASKED[name]), name)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{error.name} is needed for fastbert.{name}: pip install 'fastbert-kit[train]'"
        ) from error


def __dir__() -> list[str]:
    """List the exports, loaded or not."""
    return sorted({*globals(), *__all__})
