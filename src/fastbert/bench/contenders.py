"""Who takes part: what a contender is, and this model in its runtimes, at full depth and at goals.

A contender gets texts, since tokenisation is part of what users wait for, and gives
decisions.
All are in memory throughout, because they take turns.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, Literal, cast, get_args

import numpy as np
from jaxtyping import Int

from fastbert.bench.results import Failure
from fastbert.calibration.goal import Goal
from fastbert.classifier import FastBertClassifier
from fastbert.errors import FastBertError
from fastbert.exits.criteria import EntropyCriterion, ExitCriterion
from fastbert.folder.export import has_export, open_export
from fastbert.folder.read import ModelFolder
from fastbert.folder.write import copy_folder
from fastbert.running import PRECISIONS as EXPORTED_PRECISIONS
from fastbert.running import Precision, Runtime
from fastbert.tasks.task import Decisions
from fastbert.text import Text

logger = logging.getLogger(__name__)

OURS = "FastBERT"
EXTRAS = {  # by the package that is looked for
    "torch": "train",
    "transformers": "train",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "openvino": "openvino",
    "nncf": "export",
}

NEEDED = {"torch": ("torch",), "onnx": ("onnx", "onnxruntime"), "openvino": ("openvino",)}
"""Packages, by runtime."""
PRECISIONS: Mapping[Any, tuple[str, ...]] = {"torch": ("fp32",), **EXPORTED_PRECISIONS}

Setting = Goal | float
"""A goal, or a speed."""


@dataclass(frozen=True)
class Answers:
    """What a contender makes of texts.

    Args:
        decisions: The answer to each text, as a number.
        exit_layer: How many encoder layers each ran; None if all ran every layer.
    """

    decisions: Decisions
    exit_layer: Int[np.ndarray, " rows"] | None = None


@dataclass(frozen=True)
class Contender:
    """Something that answers texts.

    Args:
        name: No other contender is called so.
        runtime: `torch`, `onnx` or `openvino`.
        precision: `fp32`, `bf16` or `int8`.
        threads: Processor threads it may use.
        answer: Takes texts and how many to compute together.
        full_depth: The name of the same runtime at full depth, where texts may leave early.
        in_bulk_only: It differs from another contender only where there are many texts.
    """

    name: str
    runtime: str
    precision: str
    threads: int
    answer: Callable[[Sequence[Text], int], Answers]
    full_depth: str | None = None
    in_bulk_only: bool = False

    @property
    def is_ours(self) -> bool:
        """Whether it is this model and not a plain runtime."""
        return self.name.startswith(OURS)


@dataclass(frozen=True)
class Target:
    """A runtime for this model and, where it is to be exported for the run, a precision."""

    runtime: Literal["torch"] | Runtime
    precision: Precision | None = None

    @classmethod
    def read(cls, text: str) -> "Target":
        """Read `torch`, `onnx`, `openvino` or, with a precision, `openvino:int8`.

        Raises:
            ValueError: There is no such runtime, or it does not compute in that precision.
        """
        runtime, _, precision = text.partition(":")
        if runtime not in PRECISIONS:
            raise ValueError(f"runtime must be one of {', '.join(PRECISIONS)}, got {runtime!r}")
        if precision and precision not in PRECISIONS[runtime]:
            known = " or ".join(PRECISIONS[runtime])
            raise ValueError(f"precision of {runtime} must be {known}, got {precision!r}")
        return cls(cast(Any, runtime), cast(Any, precision) or None)

    def __str__(self) -> str:
        """Spell it as it is read."""
        return ":".join(filter(None, (self.runtime, self.precision)))

    def open(self, path: Path, threads: int) -> FastBertClassifier:
        """Open a folder that is exported for it, on the processor."""
        device = "cpu" if self.runtime == "torch" else None
        return FastBertClassifier.from_pretrained(
            path, runtime=self.runtime, threads=threads, device=device
        )


@dataclass(frozen=True)
class LoadedModel:
    """This model in one runtime.

    Args:
        classifier: Ready to answer.
        runtime: What computes.
        precision: In what.
        threads: Processor threads it may use.
    """

    classifier: FastBertClassifier
    runtime: str
    precision: str
    threads: int

    @property
    def name(self) -> str:
        """What its contenders are called, up to the setting."""
        return f"{OURS} {self.runtime} {self.precision}"

    @property
    def full_depth(self) -> str:
        """What it is called where every layer runs."""
        return f"{self.name}, full depth"


def targets_of(folder: ModelFolder) -> list[Target]:
    """Return the runtimes that a folder is exported for, or torch if there is none."""
    exported = [Target(runtime) for runtime in get_args(Runtime) if has_export(folder, runtime)]
    return exported or [Target("torch")]


@contextmanager
def left_out_if_it_fails(name: str, failures: list[Failure]) -> Iterator[None]:
    """Note why a contender cannot take part, and go on with the others.

    Whatever a runtime raises is caught: an export that is refused, an operator or an instruction
    that is not there, memory that does not suffice.
    """
    try:
        yield
    except Exception as error:  # whatever a runtime raises, as said above
        kind = "" if isinstance(error, FastBertError) else f"{type(error).__name__}: "
        reason = " ".join(f"{kind}{error}".split())
        logger.warning("%s is left out: %s", name, reason)
        failures.append(Failure(name, reason))


def installed(*packages: str, what: str) -> bool:
    """Return whether all packages are there; if not, say what is left out and how to have it."""
    missing = [name for name in packages if not find_spec(name)]
    if missing:
        extras = ",".join(dict.fromkeys(EXTRAS[name] for name in missing))
        logger.warning(
            "%s is left out, it needs %s: pip install 'fastbert-kit[%s]'",
            what,
            " and ".join(missing),
            extras,
        )
    return not missing


@contextmanager
def loaded_models(
    folder: ModelFolder,
    targets: Sequence[Target],
    threads: int,
    failures: list[Failure],
    texts: Sequence[Text] | None = None,
) -> Iterator[list[LoadedModel]]:
    """Load this model for each target; what has to be exported first lies in a temporary folder.

    A model that cannot be exported or loaded is noted among `failures`.

    Args:
        folder: The model.
        targets: Where it shall run.
        threads: Processor threads of each.
        failures: Where what fails is added.
        texts: Those on which an export is compared with torch; built-in sentences by default.

    Raises:
        FolderError: A target names no precision, and the folder is not exported for its runtime.
    """
    pieces = cache(lambda: _exporting().traced(folder))
    with ExitStack() as stack:
        models = []
        for target in dict.fromkeys(_resolved(folder, target) for target in targets):
            name = f"{OURS} {target.runtime} {target.precision}"
            if installed(*NEEDED[target.runtime], what=name):
                with left_out_if_it_fails(name, failures):
                    loaded = _loaded(folder, target, threads, pieces, texts)
                    models.append(stack.enter_context(loaded))
        yield models


def _resolved(folder: ModelFolder, target: Target) -> Target:
    """Return a target with a precision: if it names none, that of the folder's export."""
    if target.precision:
        return target
    if target.runtime == "torch":
        return Target("torch", "fp32")
    return Target(target.runtime, open_export(folder, target.runtime).precision)


@contextmanager
def _loaded(
    folder: ModelFolder,
    target: Target,
    threads: int,
    pieces: Callable[[], Any],
    texts: Sequence[Text] | None,
) -> Iterator[LoadedModel]:
    assert target.precision is not None, "targets are resolved first"
    with TemporaryDirectory(prefix="fastbert-bench-") as parent:
        path = folder.path if _is_ready(folder, target) else Path(parent) / "model"
        if path != folder.path:
            _export(folder, target, path, pieces, texts)
        classifier = target.open(path, threads)
        yield LoadedModel(classifier, target.runtime, target.precision, threads)


def _is_ready(folder: ModelFolder, target: Target) -> bool:
    """Return whether a folder can be run as wanted; torch can always."""
    if target.runtime == "torch":
        return True
    if not has_export(folder, target.runtime):
        return False
    return open_export(folder, target.runtime).precision == target.precision


def _exporting() -> ModuleType:
    """Return what exports, which is imported only where something has to be exported."""
    from fastbert.export import export

    return export


def _export(
    folder: ModelFolder,
    target: Target,
    copy: Path,
    pieces: Callable[[], Any],
    texts: Sequence[Text] | None,
) -> None:
    assert target.runtime != "torch"
    assert target.precision is not None
    logger.info("exporting for %s in %s", target.runtime, target.precision)
    copy_folder(folder, copy)
    _exporting().export_model(
        copy, runtime=target.runtime, precision=target.precision, pieces=pieces(), texts=texts
    )


def contenders_of(
    model: LoadedModel, settings: Sequence[Setting], failures: list[Failure]
) -> list[Contender]:
    """Return a model at full depth and at each setting.

    A goal that the model cannot be asked for is noted among `failures`.

    Args:
        model: This model in one runtime.
        settings: Goals and speeds; without any, the folder's default.
        failures: Where what fails is added.
    """
    classifier = model.classifier
    full = _contender(model, model.full_depth, EntropyCriterion(0.0))
    adaptive = []
    for setting in dict.fromkeys(settings) or [None]:
        shown = classifier.default_goal if setting is None else setting
        name = f"{model.name}, {_shown(shown)}"
        with left_out_if_it_fails(name, failures):
            criterion = _criterion(classifier, setting)
            adaptive.append(_contender(model, name, criterion, full_depth=full.name))
    return [*adaptive, full]


def _criterion(classifier: FastBertClassifier, setting: Setting | None) -> ExitCriterion:
    """Return a speed, the thresholds for a goal, whatever runtime was calibrated, or the default.

    Speed and answers are measured here, so nothing has to be promised for this runtime.
    """
    if setting is None:
        return classifier.default_criterion
    if isinstance(setting, Goal):
        return classifier.calibration.solve(setting).criterion
    return classifier.criterion(setting)


def _contender(
    model: LoadedModel, name: str, criterion: ExitCriterion, full_depth: str | None = None
) -> Contender:
    answer = partial(_classify, model.classifier, criterion)
    return Contender(name, model.runtime, model.precision, model.threads, answer, full_depth)


def _classify(
    classifier: FastBertClassifier,
    criterion: ExitCriterion,
    texts: Sequence[Text],
    batch_size: int,
) -> Answers:
    result = classifier.classify(texts, criterion, batch_size)
    return Answers(classifier.config.task.decide(result.logits), result.exit_layer)


def _shown(setting: Setting | None) -> str:
    if setting is None:
        return "by default"
    if not isinstance(setting, Goal):
        return f"speed={setting:g}"
    return ", ".join(
        f"{name}={value if isinstance(value, str) else format(value, 'g')}"
        for name, value in setting.as_dict().items()
    )
