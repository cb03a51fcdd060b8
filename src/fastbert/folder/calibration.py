"""The calibration record of a model folder: what all exits answered on held-out rows.

`calibration.safetensors` holds the arrays, and `early_exit.json` says what they are, which
weights answered and the hash of the file. Texts are not kept. With it any goal is solved without
the model; it is read when it is first needed, for answers at a given speed do without it.
"""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save_file

from fastbert.calibration.answerer import TIMED_PARTS, TORCH, Answerer, PartTimes
from fastbert.calibration.goal import DEFAULT_GOAL, Goal, GoalOptions
from fastbert.calibration.points import OperatingPoint
from fastbert.calibration.solve import Calibration
from fastbert.errors import CalibrationError, FolderError
from fastbert.exits.criteria import EntropyCriterion, ExitCriterion, Measure, ThresholdCriterion
from fastbert.exits.measures import MEASURES, measure_from_json, measure_to_json
from fastbert.exits.recorded import RecordedExits
from fastbert.files.disk import hash_of_file
from fastbert.folder.config import LABELS_HASH, DefaultPoint, EarlyExitConfig
from fastbert.folder.names import CALIBRATION_FILE, EARLY_EXIT_FILE, HASHED_FILES
from fastbert.folder.read import ModelFolder, open_folder
from fastbert.folder.write import fill_staging, reseal, staged_folder
from fastbert.processor import processor_name
from fastbert.tasks.task import Decisions

DECIDING = (LABELS_HASH, *HASHED_FILES)  # what decides an answer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CalibrationRecord:
    """What early_exit.json says of a calibration.

    Args:
        sha256: Of the file of arrays.
        hashes: Of the files and the label order that decide an answer.
        answered_by: Runtime and precision that computed the answers; None where nobody noted them.
        source: Name of the file the rows came from.
        rows: How many rows.
        labeled: Whether they have labels.
        measure: Name and settings of the measure of doubt.
        times_ms: How long the parts of the model took, if that was measured.
        processor: Where it was measured; None where nobody noted it.
        date: The day of the calibration.
        truth_from: The name of another model whose answers stand for labels, where one does.
    """

    sha256: str
    hashes: dict[str, str]
    answered_by: dict[str, str] | None
    source: str
    rows: int
    labeled: bool
    measure: dict[str, Any]
    times_ms: dict[str, float] | None
    processor: str | None
    date: str
    truth_from: str | None = None

    def told(self) -> dict[str, Any]:
        """Return it as early_exit.json holds it; another model is named only where there is one."""
        told = asdict(self)
        return told if self.truth_from else {key: told[key] for key in told if key != "truth_from"}


def record_facts(record: Mapping[str, Any]) -> dict[str, str]:
    """Return what a person wants to know of a record; its hashes have been checked.

    Args:
        record: `calibration` of early_exit.json.
    """
    labels = "labelled" if record["labeled"] else "not labelled"
    if record.get("truth_from"):
        labels = f"answered by {record['truth_from']}"
    facts = {
        "rows": f"{record['rows']:,} of {record['source']}, {labels}",
        "measure": record["measure"]["name"],
        "date": record["date"],
    }
    if record["answered_by"]:
        facts["answered by"] = str(Answerer(**record["answered_by"]))
    if record["processor"]:
        facts["timed on"] = record["processor"]
    for part, milliseconds in (record["times_ms"] or {}).items():
        facts[f"{part}, one text"] = f"{milliseconds:.2f} ms"
    return facts


def save_calibration(
    folder: ModelFolder, calibration: Calibration, source: str, default: Goal = DEFAULT_GOAL
) -> ModelFolder:
    """Write a calibration into a model folder, in place of an earlier one.

    Args:
        folder: The folder whose model answered; it is replaced as a whole.
        calibration: What to keep.
        source: Where the rows came from, a name that may be published.
        default: What the model shall reach where nobody asks for a speed or a goal.

    Raises:
        CalibrationError: The default cannot be met.
        FolderError: The folder cannot be written, or is no longer what it was when opened.
    """
    with staged_folder(folder.path) as staging:
        fill_staging(folder, staging)
        add_calibration(staging, folder.config, calibration, source, calibration.solve(default))
    return open_folder(folder.path, folder.files)


def add_calibration(
    staging: Path,
    config: EarlyExitConfig,
    calibration: Calibration,
    source: str,
    default: OperatingPoint,
) -> EarlyExitConfig:
    """Write a calibration into a folder that is being made and sealed, and seal it again."""
    arrays = {
        "logits": calibration.recorded.recorded.astype(np.float32),
        "lengths": calibration.lengths.astype(np.int32),
    }
    if calibration.truth is not None:
        truth = calibration.truth
        arrays["labels"] = truth if truth.dtype == bool else truth.astype(np.int32)
    if calibration.fitted is not None:
        arrays["fitted"] = calibration.fitted
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    save_file(arrays, staging / CALIBRATION_FILE)  # it writes memory as it lies
    answered_by, times = calibration.answered_by, calibration.times
    record = CalibrationRecord(
        sha256=hash_of_file(staging / CALIBRATION_FILE),
        hashes={name: config.hashes[name] for name in DECIDING},
        answered_by=None if answered_by is None else asdict(answered_by),
        source=source,
        rows=calibration.recorded.num_rows,
        labeled=calibration.truth is not None,
        measure=measure_to_json(calibration.measure),
        times_ms=None if times is None else {part: getattr(times, part) for part in TIMED_PARTS},
        processor=None if times is None else times.processor,
        date=datetime.now(UTC).date().isoformat(),
        truth_from=calibration.truth_from,
    )
    point = DefaultPoint(
        measure=record.measure,
        thresholds=default.thresholds,
        goal=None if default.goal is None else default.goal.as_dict(),
    )
    return reseal(staging, replace(config, calibration=record.told(), default=point))


def load_calibration(folder: ModelFolder, measure: Measure | None = None) -> Calibration:
    """Read the calibration of a model folder.

    Args:
        folder: A verified folder.
        measure: Your own measure of doubt, if it was calibrated with one.

    Raises:
        FolderError: There is none, it is damaged, or other weights or labels made it.
    """
    record = read_record(folder)
    path = folder.path / CALIBRATION_FILE
    file = folder.files.get(CALIBRATION_FILE)
    if file is None:
        raise FolderError("is missing; calibrate again with `fastbert calibrate`", path=path)
    content = file.read_bytes()
    # Hashed again: it is read when a goal is first asked for, perhaps days after it was opened.
    if hashlib.sha256(content).hexdigest() != record.sha256:
        raise FolderError("does not match its hash; calibrate again", path=path)
    try:
        arrays = load(content)
    except SafetensorError as error:
        raise FolderError(f"cannot be read as safetensors: {error}", path=path) from error
    labels = arrays.get("labels")
    return Calibration(
        recorded=RecordedExits(arrays["logits"]),
        truth=None if labels is None else _widened(labels),
        lengths=arrays["lengths"].astype(np.int64),
        shape=folder.shape,
        task=folder.config.task,
        measure=measure or stored_measure(folder, record.measure),
        times=_times(folder, record),
        truth_from=record.truth_from,
        fitted=arrays.get("fitted"),
        answered_by=None if record.answered_by is None else Answerer(**record.answered_by),
    )


def can_solve_goals(folder: ModelFolder) -> bool:
    """Return whether a folder is calibrated, and with a measure of doubt that we know.

    One of somebody's own is only known where they pass it, so nobody else can solve its goals.
    """
    found = folder.config.calibration
    return found is not None and read_record(folder).measure.get("name") in MEASURES


def read_record(folder: ModelFolder) -> CalibrationRecord:
    """Return what early_exit.json says of the calibration.

    Raises:
        FolderError: There is none, it is not understood, or other weights or labels made it.
    """
    path, found = folder.path / EARLY_EXIT_FILE, folder.config.calibration
    if found is None:
        raise FolderError(
            f"is not calibrated, so no goal can be asked for; do it with "
            f"`fastbert calibrate {folder.path} DEV`",
            path=folder.path,
        )
    record = _checked(path, found)
    for name in DECIDING:
        if record.hashes.get(name) != folder.config.hashes[name]:
            what = "order of labels" if name == LABELS_HASH else name
            raise FolderError(
                f"the calibration was made with another {what}; calibrate again", path=path
            )
    return record


def _checked(path: Path, found: Mapping[str, Any]) -> CalibrationRecord:
    wanted = {field.name for field in fields(CalibrationRecord)}
    needed = {field.name for field in fields(CalibrationRecord) if field.default is MISSING}
    for key in sorted((needed - found.keys()) | (found.keys() - wanted)):
        state = "missing" if key in needed else "unknown"
        raise FolderError(f'key "calibration.{key}" is {state}', path=path)
    return CalibrationRecord(**found)


def _widened(truth: np.ndarray) -> Decisions:
    """Return right answers as they were before they were written."""
    return truth if truth.dtype == bool else truth.astype(np.int64)


def _times(folder: ModelFolder, record: CalibrationRecord) -> PartTimes | None:
    if record.times_ms is None:
        return None
    try:
        return PartTimes(**record.times_ms, processor=record.processor)
    except TypeError as error:
        path = folder.path / EARLY_EXIT_FILE
        raise FolderError(f'key "calibration.times_ms": {error}', path=path) from error


def stored_measure(folder: ModelFolder, entries: Mapping[str, Any]) -> Measure:
    """Return the measure of doubt that early_exit.json names.

    Raises:
        FolderError: It is none of `fastbert.exits.measures`.
    """
    try:
        return measure_from_json(entries)
    except ValueError as error:
        raise FolderError(
            f"{error}; one of your own is passed as `from_pretrained(..., measure=...)`",
            path=folder.path / EARLY_EXIT_FILE,
        ) from error


def refuse_other_answerer(folder: ModelFolder, goal: Goal, answerer: Answerer) -> None:
    """Refuse a goal that the calibration cannot speak of, since something else answered there.

    A promise and a drop hold for the runtime and precision that was calibrated, times for the
    processor as well. What only counts layers is nearly the same everywhere: there a warning does.

    Args:
        folder: A calibrated folder.
        goal: What is asked for.
        answerer: What answers now.

    Raises:
        CalibrationError: The goal has to be calibrated again.
    """
    name, _ = goal.aim
    told = _other_answerer(folder, answerer, promise=goal.confidence is not None)
    if told and name in ("max_drop", "latency_ms"):
        raise CalibrationError(f"{told}, so {name} was not measured; {_again(folder, answerer)}")
    if told:
        logger.warning("%s, so %s may come out otherwise; %s", told, name, _again(folder, answerer))
    timed_on = read_record(folder).processor
    if name == "latency_ms" and timed_on not in (None, processor_name()):
        raise CalibrationError(
            f"{folder.path}: was timed on {timed_on}, this is {processor_name()}; "
            f"{_again(folder, answerer)} --time"
        )


def answers_as_calibrated(folder: ModelFolder, answerer: Answerer) -> bool:
    """Return whether the calibration speaks of what answers now, as far as it says."""
    return _other_answerer(folder, answerer, promise=False) is None


def default_goal(folder: ModelFolder) -> Goal | None:
    """Return the goal that a folder answers for by default; None if it stores none."""
    stored = folder.config.default
    if stored is None or stored.goal is None:
        return None
    return Goal(**cast(GoalOptions, stored.goal))


def default_criterion(
    folder: ModelFolder, measure: Measure | None, answerer: Answerer
) -> ExitCriterion:
    """Return how a folder answers by default.

    Args:
        folder: A verified model folder.
        measure: Somebody's own measure, if the thresholds are for that.
        answerer: What answers now.

    Raises:
        CalibrationError: The default is a promise, and it was made for another runtime.
        FolderError: It was chosen by a measure of one's own, which was not passed.
    """
    stored, goal = folder.config.default, default_goal(folder)
    if stored is None or not stored.thresholds:
        return EntropyCriterion(0.0)
    if goal is None:  # version 0.1 stored a speed
        return EntropyCriterion(stored.thresholds[0])
    check_default(folder, goal, answerer)
    return ThresholdCriterion(measure or stored_measure(folder, stored.measure), stored.thresholds)


def check_default(folder: ModelFolder, goal: Goal, answerer: Answerer) -> None:
    """Warn where the default was chosen for other answers; a promise is refused there.

    Raises:
        CalibrationError: The default is a promise.
    """
    told = _other_answerer(folder, answerer, promise=goal.confidence is not None)
    if told and goal.confidence is not None:
        raise CalibrationError(f"{told}, so nothing is promised; {_again(folder, answerer)}")
    if told:
        logger.warning(
            "%s, so its thresholds may lose more or save less; %s", told, _again(folder, answerer)
        )


def _other_answerer(folder: ModelFolder, answerer: Answerer, *, promise: bool) -> str | None:
    """Return what to say if something else was calibrated than answers now."""
    answered_by = read_record(folder).answered_by
    if answered_by is None:  # version 0.1 did not note it
        return f"{folder.path}: does not say what was calibrated" if promise else None
    if Answerer(**answered_by) == answerer:
        return None
    return f"{folder.path}: was calibrated with {Answerer(**answered_by)}, here answers {answerer}"


def _again(folder: ModelFolder, answerer: Answerer) -> str:
    if answerer.runtime == "torch" and answerer != TORCH:  # the command line knows no dtype
        return "calibrate again by `calibrate` and `save_calibration` of this classifier"
    return (
        f"calibrate again with `fastbert calibrate {folder.path} DEV --runtime {answerer.runtime}`"
    )
