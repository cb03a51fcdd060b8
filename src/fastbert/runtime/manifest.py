"""An export inside a model folder: which files it has, what wrote them, how well they agree.

`openvino/` or `onnx/` holds a file for the embeddings, one for each layer with its exit, and
`manifest.json`. Like everything in a model folder it is checked before it is used: an export of
other weights, or a damaged file, is an error that names it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from fastbert.errors import FolderError
from fastbert.folder import (
    EXPORT_SUFFIXES,
    LABELS_HASH,
    MANIFEST_FILE,
    MODEL_CONFIG_FILE,
    STUDENTS_FILE,
    TEACHER_FILE,
    ModelFolder,
    hash_of_file,
)

Runtime = Literal["openvino", "onnx"]
Precision = Literal["fp32", "bf16", "int8"]

PRECISIONS: dict[Runtime, tuple[Precision, ...]] = {
    "openvino": ("fp32", "bf16", "int8"),
    "onnx": ("fp32", "int8"),
}

EXPORTED_FROM = (LABELS_HASH, MODEL_CONFIG_FILE, TEACHER_FILE, STUDENTS_FILE)


@dataclass(frozen=True)
class Parity:
    """How an export's answers differ from those of torch on the same rows.

    Args:
        rows: How many rows were compared, at speed 0 and at `speed`.
        source: Where they came from.
        speed: The speed of the exit layers, or the goal that chose the thresholds.
        labels_differ: Rows with another label at speed 0.
        labels_differ_at_speed: Rows with another label at the speed.
        exit_layers_differ: Rows that leave elsewhere.
        near_threshold: Of these, rows whose doubt lies within 1e-4 of a threshold they meet.
        max_probability_difference: The largest difference of a probability at speed 0.
    """

    rows: int
    source: str
    speed: float | dict[str, Any]
    labels_differ: int
    labels_differ_at_speed: int
    exit_layers_differ: int
    near_threshold: int
    max_probability_difference: float


@dataclass(frozen=True)
class ExportManifest:
    """What manifest.json says of an export.

    Args:
        runtime: What runs it.
        precision: In what it computes.
        files: SHA-256 by name of file.
        exported_from: Hashes of the model's files and of the label order.
        versions: The packages that wrote it.
        parity: How well it agrees with torch.
    """

    runtime: Runtime
    precision: Precision
    files: dict[str, str]
    exported_from: dict[str, str]
    versions: dict[str, str]
    parity: Parity

    def to_json(self) -> str:
        """Return the text of manifest.json."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


@dataclass(frozen=True)
class Export:
    """Files that a runtime can run.

    Args:
        path: The folder in which they lie.
        runtime: What runs them.
        precision: In what it shall compute.
        num_layers: Encoder layers.
    """

    path: Path
    runtime: Runtime
    precision: Precision
    num_layers: int

    @property
    def stages(self) -> list[Path]:
        """The embeddings, then each layer with its exit."""
        names = ["embeddings", *(f"layer_{layer:02d}" for layer in range(1, self.num_layers + 1))]
        return [self.path / f"{name}{EXPORT_SUFFIXES[self.runtime][0]}" for name in names]


def has_export(folder: ModelFolder, runtime: Runtime) -> bool:
    """Return whether a folder holds an export for a runtime, sound or not."""
    return (folder.path / runtime / MANIFEST_FILE).is_file()


def read_manifest(folder: ModelFolder, runtime: Runtime) -> ExportManifest:
    """Return what the export for a runtime says of itself, of the folder's own weights.

    Raises:
        FolderError: There is none, it cannot be read, or it was made from other weights.
    """
    again = _again(folder, runtime)
    if not has_export(folder, runtime):
        raise FolderError(f"{folder.path}: holds no export for {runtime}; {again}")
    path = folder.path / runtime
    manifest = _read_manifest(path / MANIFEST_FILE, again)
    for name in EXPORTED_FROM:
        if manifest.exported_from.get(name) != folder.config.hashes[name]:
            what = "another order of labels" if name == LABELS_HASH else f"another {name}"
            raise FolderError(f"{path}: was exported from {what}; {again}")
    return manifest


def open_export(folder: ModelFolder, runtime: Runtime) -> Export:
    """Verify the export for a runtime that lies in a model folder.

    Raises:
        FolderError: There is none, a file is missing or damaged, or it was made from other weights.
    """
    manifest = read_manifest(folder, runtime)
    path, again = folder.path / runtime, _again(folder, runtime)
    for name, sha256 in manifest.files.items():
        if not (path / name).is_file():
            raise FolderError(f"{path / name}: is missing; {again}")
        if hash_of_file(path / name) != sha256:
            raise FolderError(f"{path / name}: does not match its hash, it was damaged; {again}")
    export = Export(path, runtime, manifest.precision, folder.config.num_layers)
    for stage in export.stages:
        if stage.name not in manifest.files:
            raise FolderError(f"{path / MANIFEST_FILE}: does not list {stage.name}; {again}")
    return export


def _again(folder: ModelFolder, runtime: Runtime) -> str:
    return f"export again with `fastbert export {folder.path} --runtime {runtime}`"


def _read_manifest(path: Path, again: str) -> ExportManifest:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        _check_keys(found, ExportManifest)
        _check_keys(found["parity"], Parity)
        if found["runtime"] != path.parent.name or found["precision"] not in PRECISIONS.get(
            found["runtime"], ()
        ):
            raise ValueError(f"it speaks of {found['runtime']} in {found['precision']}")
        return ExportManifest(**(found | {"parity": Parity(**found["parity"])}))
    except (ValueError, TypeError, OSError) as error:
        raise FolderError(f"{path}: cannot be read: {error}; {again}") from error


def _check_keys(found: Mapping[str, Any], kind: type) -> None:
    wanted = {item.name for item in fields(kind)}
    if not isinstance(found, dict) or found.keys() != wanted:
        raise ValueError(f"its keys must be {', '.join(sorted(wanted))}")
