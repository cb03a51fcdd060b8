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
    ExportError,
    FastBertError,
    FolderError,
    MissingExtraError,
    TrainingError,
)

if TYPE_CHECKING:
    from fastbert.bulk.files import predict_file
    from fastbert.calibration.goal import Goal
    from fastbert.calibration.points import OperatingPoint
    from fastbert.calibration.solve import Calibration
    from fastbert.classifier import FastBertClassifier
    from fastbert.data.example import Columns, Example
    from fastbert.data.read import load_examples
    from fastbert.evaluation import Evaluation, evaluate
    from fastbert.head_shapes import MeanHead, PaperHead, QueryHead
    from fastbert.recipes.compare import compare
    from fastbert.recipes.contenders import Contender
    from fastbert.recipes.distill import distill
    from fastbert.recipes.run import StudentSettings
    from fastbert.recipes.train import train
    from fastbert.tasks.multi_label import LabelsPrediction
    from fastbert.tasks.single_label import Prediction
    from fastbert.training.scheme import SchemeSettings
    from fastbert.training.stage import StageSettings

    __version__: str

_LOADED_WHEN_ASKED = {
    "Calibration": "fastbert.calibration.solve",
    "Columns": "fastbert.data.example",
    "Contender": "fastbert.recipes.contenders",
    "Evaluation": "fastbert.evaluation",
    "Example": "fastbert.data.example",
    "FastBertClassifier": "fastbert.classifier",
    "Goal": "fastbert.calibration.goal",
    "MeanHead": "fastbert.head_shapes",
    "OperatingPoint": "fastbert.calibration.points",
    "PaperHead": "fastbert.head_shapes",
    "LabelsPrediction": "fastbert.tasks.multi_label",
    "Prediction": "fastbert.tasks.single_label",
    "QueryHead": "fastbert.head_shapes",
    "SchemeSettings": "fastbert.training.scheme",
    "StageSettings": "fastbert.training.stage",
    "StudentSettings": "fastbert.recipes.run",
    "compare": "fastbert.recipes.compare",
    "distill": "fastbert.recipes.distill",
    "evaluate": "fastbert.evaluation",
    "load_examples": "fastbert.data.read",
    "predict_file": "fastbert.bulk.files",
    "train": "fastbert.recipes.train",
}

__all__ = [
    "BackboneError",
    "Calibration",
    "CalibrationError",
    "Columns",
    "Contender",
    "DataError",
    "Evaluation",
    "Example",
    "ExportError",
    "FastBertClassifier",
    "FastBertError",
    "FolderError",
    "Goal",
    "LabelsPrediction",
    "MeanHead",
    "MissingExtraError",
    "OperatingPoint",
    "PaperHead",
    "Prediction",
    "QueryHead",
    "SchemeSettings",
    "StageSettings",
    "StudentSettings",
    "TrainingError",
    "__version__",
    "compare",
    "distill",
    "evaluate",
    "load_examples",
    "predict_file",
    "train",
]


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
