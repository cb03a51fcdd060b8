"""An export inside a model folder: which files it has, what wrote them, how well they agree.

`openvino/` or `onnx/` holds a file for the embeddings, one for each layer with its exit, and
`manifest.json`, which names exactly these files. Like everything in a model folder it is checked
before it is used: an export of other weights, or a damaged file, is an error that names it.
"""

import json
import mmap
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from fastbert.errors import FolderError
from fastbert.files.open_file import OpenFile
from fastbert.folder.config import LABELS_HASH
from fastbert.folder.names import (
    ADAPTIVE_FILE,
    EXPORT_SUFFIXES,
    MANIFEST_FILE,
    MODEL_CONFIG_FILE,
    STUDENTS_FILE,
    TEACHER_FILE,
)
from fastbert.folder.read import ModelFolder
from fastbert.folder.strict_json import hash_of_json
from fastbert.running import PRECISIONS, Precision, Runtime

OWN_HASH = "sha256"  # of manifest.json itself, without this key; version 0.1 wrote none
# How many bits activations take where products are of integers. ONNX had 8 as well, before.
ACTIVATION_BITS: dict[tuple[Runtime, Precision], int] = {
    ("openvino", "int8"): 8,
    ("onnx", "int8"): 7,
}
FULL_RANGE = 8

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
        activation_bits: Of activations in integers; None where there are none.
        files: SHA-256 by name of file.
        exported_from: Hashes of the model's files and of the label order.
        versions: The packages that wrote it.
        parity: How well it agrees with torch.
    """

    runtime: Runtime
    precision: Precision
    activation_bits: int | None
    files: dict[str, str]
    exported_from: dict[str, str]
    versions: dict[str, str]
    parity: Parity

    def to_json(self) -> str:
        """Return the text of manifest.json."""
        entries = asdict(self)
        entries |= {OWN_HASH: hash_of_json(entries)}
        return json.dumps(entries, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


@dataclass(frozen=True)
class Export:
    """Files that a runtime can run.

    Args:
        path: The folder in which they lie.
        runtime: What runs them.
        precision: In what it shall compute.
        num_layers: Encoder layers.
        activation_bits: Of activations in integers; None where there are none.
        files: The files by name, open; none before they are written.
    """

    path: Path
    runtime: Runtime
    precision: Precision
    num_layers: int
    activation_bits: int | None = None
    files: Mapping[str, OpenFile] = field(default_factory=dict, repr=False, compare=False)

    @property
    def pieces(self) -> list[Path]:
        """The embeddings, then each layer with its exit."""
        suffix, _ = EXPORT_SUFFIXES[self.runtime]
        return [self.path / f"{name}{suffix}" for name in _piece_names(self.num_layers)]

    def opened(self) -> "Export":
        """Return the same with the files that lie in its folder now."""
        return replace(self, files={path.name: OpenFile(path) for path in self.path.iterdir()})

    def open_pieces(self) -> list["OpenPiece"]:
        """Return every piece, for segments to be made of at any later time."""
        return [self._open_piece(path) for path in self.pieces]

    def _open_piece(self, path: Path) -> "OpenPiece":
        weights = self.files.get(f"{path.stem}.bin")
        graph = self.files[path.name].read_bytes()
        return OpenPiece(path, graph, None if weights is None else weights.mapped())


def _piece_names(num_layers: int) -> list[str]:
    return ["embeddings", *(f"layer_{layer:02d}" for layer in range(1, num_layers + 1))]


@dataclass(frozen=True)
class OpenPiece:
    """A piece as it was when it was opened, whatever lies at its path since.

    Args:
        path: Where its graph lay; for messages.
        graph: The bytes of the graph.
        weights: The file of weights beside it, mapped; None where all are in the graph.
    """

    path: Path
    graph: bytes = field(repr=False)
    weights: mmap.mmap | None = field(repr=False)

    def forget_weights(self) -> None:
        """Let go of the memory of what was read; what is read again comes from the file again.

        Runtimes rearrange most weights once and never look at the file's again.
        """
        if self.weights is not None:
            self.weights.madvise(mmap.MADV_DONTNEED)


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
        raise FolderError(f"holds no export for {runtime}; {again}", path=folder.path)
    path = folder.path / runtime
    manifest = read_manifest_file(path / MANIFEST_FILE, folder.config.num_layers, again)
    for name in EXPORTED_FROM:
        if manifest.exported_from.get(name) != folder.config.hashes[name]:
            if not folder.is_in_place:
                raise FolderError(
                    "was replaced since it was opened; open it again", path=folder.path
                )
            what = "another order of labels" if name == LABELS_HASH else f"another {name}"
            raise FolderError(f"was exported from {what}; {again}", path=path)
    return manifest


def open_export(folder: ModelFolder, runtime: Runtime) -> Export:
    """Verify the export for a runtime that lies in a model folder.

    Raises:
        FolderError: There is none, a file is missing or damaged, or it was made from other weights.
    """
    manifest = read_manifest(folder, runtime)
    path, again = folder.path / runtime, _again(folder, runtime)
    files = {}
    for name, sha256 in manifest.files.items():
        if not (path / name).is_file():
            raise FolderError(f"is missing; {again}", path=path / name)
        files[name] = OpenFile(path / name)
        if files[name].sha256 != sha256:
            raise FolderError(f"does not match its hash, it was damaged; {again}", path=path / name)
    export = Export(
        path,
        runtime,
        manifest.precision,
        folder.config.num_layers,
        manifest.activation_bits,
        files,
    )
    for piece in export.pieces:
        weights = piece.with_suffix(".bin")
        if weights.name not in manifest.files and weights.exists():
            raise FolderError(
                f"is not listed in {MANIFEST_FILE}, so not checked; {again}", path=weights
            )
    return export


def _again(folder: ModelFolder, runtime: Runtime) -> str:
    return f"export again with `fastbert export {folder.path} --runtime {runtime}`"


def read_manifest_file(path: Path, num_layers: int, again: str) -> ExportManifest:
    """Read manifest.json strictly, whether its files lie beside it or not.

    Args:
        path: The file; its folder is called like the runtime.
        num_layers: Encoder layers of the model, which decide what the files are called.
        again: What to say that helps against an error.

    Raises:
        FolderError: It cannot be read, was changed, or names other files than an export has.
    """
    manifest = _read_manifest(path, again)
    graphs, weights = (
        {f"{piece}{suffix}" for piece in _piece_names(num_layers)}
        for suffix in EXPORT_SUFFIXES[manifest.runtime]
    )
    if manifest.runtime == "openvino":
        needed = allowed = graphs | weights
    else:  # few weights lie in the graph itself
        needed, allowed = graphs, graphs | weights | {ADAPTIVE_FILE}
    for name in sorted(needed - manifest.files.keys()):
        raise FolderError(f"does not list {name}; {again}", path=path)
    for name in sorted(manifest.files.keys() - allowed):
        raise FolderError(f"lists {name!r}, which is no file of an export; {again}", path=path)
    return manifest


def _read_manifest(path: Path, again: str) -> ExportManifest:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        _check_own_hash(found)
        if isinstance(found, dict) and "activation_bits" not in found:  # as version 0.1 wrote it
            found["activation_bits"] = FULL_RANGE if found.get("precision") == "int8" else None
        _check_keys(found, ExportManifest)
        _check_keys(found["parity"], Parity)
        if found["runtime"] != path.parent.name or found["precision"] not in PRECISIONS.get(
            found["runtime"], ()
        ):
            raise ValueError(f"it speaks of {found['runtime']} in {found['precision']}")
        return ExportManifest(**(found | {"parity": Parity(**found["parity"])}))
    except (ValueError, TypeError, OSError) as error:
        raise FolderError(f"cannot be read: {error}; {again}", path=path) from error


def _check_own_hash(found: Any) -> None:
    """Take the hash of a manifest out of it, and refuse the rest if it is of another."""
    own = found.pop(OWN_HASH, None) if isinstance(found, dict) else None
    if own is not None and own != hash_of_json(found):
        raise ValueError("it was damaged or edited, it does not match its own hash")


def _check_keys(found: Mapping[str, Any], kind: type) -> None:
    wanted = {item.name for item in fields(kind)}
    if not isinstance(found, dict) or found.keys() != wanted:
        raise ValueError(f"its keys must be {', '.join(sorted(wanted))}")
