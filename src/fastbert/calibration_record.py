"""The calibration record of a model folder: what all exits answered on held-out rows.

`calibration.safetensors` holds the arrays, and `early_exit.json` says what they are, which
weights answered and the hash of the file. Texts are not kept. With it any goal is solved without
the model; it is read when it is first needed, for answers at a given speed do without it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from fastbert.calibration import RecordedExits
from fastbert.criteria import Measure
from fastbert.errors import FolderError
from fastbert.folder import (
    EARLY_EXIT_FILE,
    HASHED_FILES,
    LABELS_HASH,
    EarlyExitConfig,
    ModelFolder,
    fill_stage,
    hash_of_file,
    open_folder,
    seal,
    staged_folder,
)
from fastbert.goals import Calibration, StageTimes
from fastbert.measures import measure_from_json, measure_to_json

CALIBRATION_FILE = "calibration.safetensors"
ANSWERED_BY = (LABELS_HASH, *HASHED_FILES)


@dataclass(frozen=True)
class CalibrationRecord:
    """What early_exit.json says of a calibration.

    Args:
        sha256: Of the file of arrays.
        answered_by: Hashes of the files and the label order that decide an answer.
        source: Name of the file the rows came from.
        rows: How many rows.
        labeled: Whether they have labels.
        criterion: Name and settings of the measure of doubt.
        times_ms: How long the parts of the model took, if that was measured.
        date: The day of the calibration.
    """

    sha256: str
    answered_by: dict[str, str]
    source: str
    rows: int
    labeled: bool
    criterion: dict[str, Any]
    times_ms: dict[str, float] | None
    date: str


def record_facts(record: Mapping[str, Any]) -> dict[str, str]:
    """Return what a person wants to know of a record; its hashes have been checked.

    Args:
        record: `calibration` of early_exit.json.
    """
    labels = "labelled" if record["labeled"] else "not labelled"
    facts = {
        "rows": f"{record['rows']:,} of {record['source']}, {labels}",
        "criterion": record["criterion"]["name"],
        "date": record["date"],
    }
    for part, milliseconds in (record["times_ms"] or {}).items():
        facts[f"{part}, one text"] = f"{milliseconds:.2f} ms"
    return facts


def save_calibration(folder: ModelFolder, calibration: Calibration, source: str) -> ModelFolder:
    """Write a calibration into a model folder, in place of an earlier one.

    Args:
        folder: The folder whose model answered; it is replaced as a whole.
        calibration: What to keep.
        source: Where the rows came from, a name that may be published.

    Raises:
        FolderError: The folder cannot be written, or is no longer what it was when opened.
    """
    with staged_folder(folder.path) as stage:
        fill_stage(folder, stage)
        add_calibration(stage, folder.config, calibration, source)
    return open_folder(folder.path)


def add_calibration(
    stage: Path, config: EarlyExitConfig, calibration: Calibration, source: str
) -> EarlyExitConfig:
    """Write a calibration into a folder that is being made, and seal it again."""
    arrays = {
        "logits": calibration.recorded.recorded.astype(np.float32),
        "lengths": calibration.lengths.astype(np.int32),
    }
    if calibration.truth is not None:
        arrays["labels"] = calibration.truth.astype(np.int32)
    if calibration.fitted is not None:
        arrays["fitted"] = calibration.fitted
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    save_file(arrays, stage / CALIBRATION_FILE)  # it writes memory as it lies
    record = CalibrationRecord(
        sha256=hash_of_file(stage / CALIBRATION_FILE),
        answered_by={name: config.hashes[name] for name in ANSWERED_BY},
        source=source,
        rows=calibration.recorded.num_rows,
        labeled=calibration.truth is not None,
        criterion=measure_to_json(calibration.measure),
        times_ms=None if calibration.times is None else asdict(calibration.times),
        date=datetime.now(UTC).date().isoformat(),
    )
    return seal(stage, replace(config, calibration=asdict(record)))


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
    if not path.is_file():
        raise FolderError(f"{path}: is missing; calibrate again with `fastbert calibrate`")
    if hash_of_file(path) != record.sha256:
        raise FolderError(f"{path}: does not match its hash; calibrate again")
    try:
        arrays = load_file(path)
    except SafetensorError as error:
        raise FolderError(f"{path}: cannot be read as safetensors: {error}") from error
    labels = arrays.get("labels")
    return Calibration(
        recorded=RecordedExits(arrays["logits"]),
        truth=None if labels is None else labels.astype(np.int64),
        lengths=arrays["lengths"].astype(np.int64),
        shape=folder.shape,
        measure=measure or _measure(folder, record),
        times=_times(folder, record),
        fitted=arrays.get("fitted"),
    )


def read_record(folder: ModelFolder) -> CalibrationRecord:
    """Return what early_exit.json says of the calibration.

    Raises:
        FolderError: There is none, it is not understood, or other weights or labels made it.
    """
    path, found = folder.path / EARLY_EXIT_FILE, folder.config.calibration
    if found is None:
        raise FolderError(
            f"{folder.path}: is not calibrated, so no goal can be asked for; do it with "
            f"`fastbert calibrate {folder.path} DEV`"
        )
    record = _checked(path, found)
    for name in ANSWERED_BY:
        if record.answered_by.get(name) != folder.config.hashes[name]:
            what = "order of labels" if name == LABELS_HASH else name
            raise FolderError(
                f"{path}: the calibration was made with another {what}; calibrate again"
            )
    return record


def _checked(path: Path, found: Mapping[str, Any]) -> CalibrationRecord:
    wanted = {field.name for field in fields(CalibrationRecord)}
    for key in sorted(wanted ^ found.keys()):
        state = "missing" if key in wanted else "unknown"
        raise FolderError(f'{path}: key "calibration.{key}" is {state}')
    return CalibrationRecord(**found)


def _times(folder: ModelFolder, record: CalibrationRecord) -> StageTimes | None:
    if record.times_ms is None:
        return None
    try:
        return StageTimes(**record.times_ms)
    except TypeError as error:
        path = folder.path / EARLY_EXIT_FILE
        raise FolderError(f'{path}: key "calibration.times_ms": {error}') from error


def _measure(folder: ModelFolder, record: CalibrationRecord) -> Measure:
    try:
        return measure_from_json(record.criterion)
    except ValueError as error:
        raise FolderError(
            f"{folder.path / EARLY_EXIT_FILE}: {error}; one of your own is passed as "
            "`from_pretrained(..., measure=...)`"
        ) from error
