"""The model folder: what lies in it, how it gets there whole, what is checked before it is used.

A folder is complete or absent. It is written beside its place, sealed by `early_exit.json`, which
holds the hash of everything that decides an answer, flushed to disk and renamed into place; what
a killed save left behind is recognised by its name and its released lock. One list, `OWN_FILES`,
says what belongs to a model; whatever else a user keeps in the folder is left alone, not copied
and not pushed. Reading trusts nothing: whatever does not fit is a `FolderError` that names the
file. No pickle is ever opened. Needs a POSIX system (file locks, renaming folders). Nothing here
imports torch or transformers.
"""

import errno
import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError

from fastbert.cost import ModelShape, config_value
from fastbert.errors import FolderError
from fastbert.open_file import OpenFile
from fastbert.text import TextTokenizer

MODEL_CONFIG_FILE = "config.json"
TEACHER_FILE = "model.safetensors"
STUDENTS_FILE = "students.safetensors"
TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
EARLY_EXIT_FILE = "early_exit.json"
CALIBRATION_FILE = "calibration.safetensors"
CARD_FILE = "README.md"
FIGURE_FILE = "speed-accuracy.png"  # on the card
MANIFEST_FILE = "manifest.json"  # of an export
ADAPTIVE_FILE = "adaptive.onnx"

SCHEMA_VERSION = 2
OLDEST_SCHEMA = 1  # that is still read
HASHED_FILES = (  # whatever decides an answer
    MODEL_CONFIG_FILE,
    TEACHER_FILE,
    STUDENTS_FILE,
    TOKENIZER_FILE,
    TOKENIZER_CONFIG_FILE,
)
EXPORT_SUFFIXES = {  # of the graph and the weights of a piece, by the folder of the runtime
    "openvino": (".xml", ".bin"),
    "onnx": (".onnx", ".bin"),
}
EXPORT_FILES = (
    *(f"{runtime}/{MANIFEST_FILE}" for runtime in EXPORT_SUFFIXES),
    *(
        f"{runtime}/{piece}{suffix}"
        for runtime, suffixes in EXPORT_SUFFIXES.items()
        for piece in ("embeddings", "layer_[0-9][0-9]")
        for suffix in suffixes
    ),
    f"onnx/{ADAPTIVE_FILE}",
)
# All that belongs to a model folder, as patterns: what is copied, pushed and replaced.
OWN_FILES = (
    *HASHED_FILES,
    EARLY_EXIT_FILE,
    CALIBRATION_FILE,
    CARD_FILE,
    FIGURE_FILE,
    *EXPORT_FILES,
)
LABELS_HASH = "labels"  # of the label order
SETTINGS_HASH = "settings"  # of early_exit.json itself, without its hashes
PACKAGES = {"fastbert": "fastbert-kit"} | {
    name: name for name in ("torch", "transformers", "tokenizers")
}

POOLINGS = ("first", "mean")
TEACHER_HEADS = ("pretrained", "paper")

SWAP_ATTEMPTS = 10
SWAP_SECONDS = 0.05  # between two attempts to find the target while another process swaps it

logger = logging.getLogger(__name__)


# What early_exit.json says.


@dataclass(frozen=True)
class StudentShape:
    """The shape of the students.

    Args:
        pooling: What is read of a student's attention: the first token or the mean.
        width: Width of a student.
        num_heads: Attention heads; they divide the width.

    Raises:
        ValueError: A student cannot have this shape.
    """

    pooling: Literal["first", "mean"] = "first"
    width: int = 128
    num_heads: int = 2

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        if self.pooling not in POOLINGS:
            raise ValueError(f"students.pooling must be one of {POOLINGS}, got {self.pooling!r}")
        if self.width < 1 or self.num_heads < 1 or self.width % self.num_heads:
            raise ValueError(
                "students.width must be a positive multiple of students.num_heads, "
                f"got {self.width} and {self.num_heads}"
            )


@dataclass(frozen=True)
class DefaultPoint:
    """How a model answers where nobody asks for a speed or a goal.

    Args:
        measure: Name and settings of the measure of doubt.
        thresholds: One for each student, from 0 (nobody leaves there) to 1.
        goal: What the thresholds were chosen for, by name; None if they are a speed of the paper's.

    Raises:
        ValueError: A threshold lies outside 0 to 1.
    """

    measure: dict[str, Any]
    thresholds: tuple[float, ...]
    goal: dict[str, float | str] | None = None

    def __post_init__(self) -> None:
        """Refuse thresholds that no doubt can reach."""
        if not all(0 <= threshold <= 1 for threshold in self.thresholds):
            raise ValueError(
                f"default.thresholds must lie between 0 and 1, got {list(self.thresholds)}"
            )


@dataclass(frozen=True)
class EarlyExitConfig:
    """What early_exit.json says about a model.

    Args:
        teacher_head: Whose head the teacher has: `pretrained`, the family's own, or `paper`, where
            the teacher's file holds a plain encoder and its head lies with the students.
        labels: The classes, in the order of the logits.
        num_layers: Encoder layers.
        max_length: Tokens that a text may have, special tokens included.
        students: The shape of the students.
        default: How it answers where nobody asks for a speed or a goal; None runs every layer.
        hashes: SHA-256 of files by name, of the label order and of these settings.
        versions: The packages that wrote the folder.
        training: What produced the weights, free in form.
        evaluation: The measured table, one mapping a row.
        calibration: The record behind thresholds chosen for a goal, if there is one.
        schema_version: Version of this format.

    Raises:
        ValueError: A value is outside its range.
    """

    teacher_head: Literal["pretrained", "paper"]
    labels: tuple[str, ...]
    num_layers: int
    max_length: int
    students: StudentShape = field(default_factory=StudentShape)
    default: DefaultPoint | None = None
    hashes: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    evaluation: list[dict[str, Any]] = field(default_factory=list)
    calibration: dict[str, Any] | None = None
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        """Refuse values that no model can have."""
        if self.teacher_head not in TEACHER_HEADS:
            raise ValueError(
                f"teacher_head must be one of {TEACHER_HEADS}, got {self.teacher_head!r}"
            )
        if len(self.labels) < 2 or len(set(self.labels)) < len(self.labels):
            raise ValueError(f"labels must be at least 2 different names, got {self.labels}")
        if self.num_layers < 1 or self.max_length < 1:
            raise ValueError(
                "num_layers and max_length must be positive, "
                f"got {self.num_layers} and {self.max_length}"
            )
        if self.default is not None and len(self.default.thresholds) != self.num_layers - 1:
            raise ValueError(
                f"default.thresholds must be one for each of {self.num_layers - 1} students, "
                f"got {len(self.default.thresholds)}"
            )

    def to_json(self) -> str:
        """Return the text of early_exit.json."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @staticmethod
    def read(path: Path | OpenFile) -> "EarlyExitConfig":
        """Read early_exit.json strictly, its own hash included.

        Raises:
            FolderError: A key is missing, unknown or of the wrong type, a value is outside its
                range, the schema is newer than this package, or the file was changed.
        """
        entries = _read_json(path, strict=True)
        schema = entries.get("schema_version")
        if type(schema) is int and not OLDEST_SCHEMA <= schema <= SCHEMA_VERSION:
            raise FolderError(
                f'{path}: key "schema_version" is {schema}, this package reads {OLDEST_SCHEMA} to '
                f"{SCHEMA_VERSION}; upgrade it with `pip install -U fastbert-kit`"
            )
        is_first = type(schema) is int and schema == 1
        _check_keys(path, "", entries, SCHEMA_1_TYPES if is_first else EARLY_EXIT_TYPES)
        _check_keys(path, "students.", entries["students"], STUDENT_TYPES)
        if entries.get("default") is not None:
            _check_keys(path, "default.", entries["default"], DEFAULT_TYPES)
            _check_items(path, "default.thresholds", entries["default"]["thresholds"], float)
        head = "layout" if is_first else "teacher_head"
        _check_choice(path, head, entries[head], TEACHER_HEADS)
        _check_choice(path, "students.pooling", entries["students"]["pooling"], POOLINGS)
        _check_items(path, "labels", entries["labels"], str)
        _check_items(path, "evaluation", entries["evaluation"], dict)
        _check_items(path, "versions", entries["versions"].values(), str)
        try:
            _check_hashes(path, entries)
            if is_first:
                entries = _from_schema_1(entries)
            changed = {
                "students": StudentShape(**entries["students"]),
                "labels": tuple(entries["labels"]),
                "default": _default_point(entries["default"]),
            }
            return EarlyExitConfig(**(entries | changed))
        except (ValueError, OverflowError, RecursionError) as error:
            raise FolderError(f"{path}: {error}") from error


EARLY_EXIT_TYPES: dict[str, tuple[type, ...]] = {
    "teacher_head": (str,),
    "labels": (list,),
    "num_layers": (int,),
    "max_length": (int,),
    "students": (dict,),
    "default": (dict, type(None)),
    "hashes": (dict,),
    "versions": (dict,),
    "training": (dict,),
    "evaluation": (list,),
    "calibration": (dict, type(None)),
    "schema_version": (int,),
}
DEFAULT_TYPES: dict[str, tuple[type, ...]] = {
    "measure": (dict,),
    "thresholds": (list,),
    "goal": (dict, type(None)),
}
# Version 0.1 had one speed, and a criterion that could only be entropy.
SCHEMA_1_TYPES = {
    key: kinds for key, kinds in EARLY_EXIT_TYPES.items() if key not in ("default", "teacher_head")
} | {
    "layout": (str,),
    "criterion": (dict,),
    "speed": (float, int),
}
STUDENT_TYPES: dict[str, tuple[type, ...]] = {
    "pooling": (str,),
    "width": (int,),
    "num_heads": (int,),
}
JSON_NAMES = {
    bool: "true or false",
    str: "a string",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "an object",
    type(None): "null",
}


def _check_keys(
    path: Path | OpenFile,
    where: str,
    entries: dict[str, Any],
    types: Mapping[str, tuple[type, ...]],
) -> None:
    for key in types:
        if key not in entries:
            raise FolderError(f'{path}: key "{where}{key}" is missing')
    for key in entries:
        if key not in types:
            raise FolderError(f'{path}: key "{where}{key}" is unknown')
    for key, allowed in types.items():
        found = type(entries[key])  # exactly, for True is an int as well
        if found not in allowed:
            wanted = " or ".join(JSON_NAMES[kind] for kind in allowed)
            raise FolderError(
                f'{path}: key "{where}{key}" must be {wanted}, got {JSON_NAMES[found]}'
            )


def _from_schema_1(entries: dict[str, Any]) -> dict[str, Any]:
    """Return what a folder of version 0.1 says, in the words of today.

    Raises:
        ValueError: Its speed or its criterion is none.
    """
    criterion, speed = entries["criterion"], entries["speed"]
    if criterion != {"name": "entropy"}:
        raise ValueError(f'criterion must be {{"name": "entropy"}}, got {criterion}')
    if not 0 <= speed <= 1:
        raise ValueError(f"speed must be between 0 and 1, got {speed}")
    thresholds = [float(speed)] * (entries["num_layers"] - 1)
    default = {"measure": criterion, "thresholds": thresholds, "goal": None}
    gone = ("criterion", "speed", "layout")
    kept = {key: value for key, value in entries.items() if key not in gone}
    calibration = entries["calibration"]
    if calibration is not None:
        said = {"answered_by": "hashes", "criterion": "measure"}
        calibration = {said.get(key, key): value for key, value in calibration.items()}
        calibration = {"answered_by": None, "processor": None} | calibration  # nobody noted them
    return kept | {
        "teacher_head": entries["layout"],
        "default": default,
        "training": _training_from_schema_1(entries["training"]),
        "calibration": calibration,
        "schema_version": SCHEMA_VERSION,
    }


def _training_from_schema_1(training: dict[str, Any]) -> dict[str, Any]:
    said = {"layout": "teacher_head"}
    training = {said.get(key, key): value for key, value in training.items()}
    if isinstance(students := training.get("students"), dict):
        said = {"layout": "shape"}
        training["students"] = {said.get(key, key): value for key, value in students.items()}
    return training


def _default_point(entries: dict[str, Any] | None) -> DefaultPoint | None:
    if entries is None:
        return None
    return DefaultPoint(entries["measure"], tuple(entries["thresholds"]), entries["goal"])


def _check_items(path: Path | OpenFile, key: str, items: Any, allowed: type) -> None:
    for item in items:
        if type(item) is not allowed:
            raise FolderError(
                f'{path}: every item of "{key}" must be {JSON_NAMES[allowed]}, '
                f"got {JSON_NAMES[type(item)]}"
            )


def _check_choice(path: Path | OpenFile, key: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise FolderError(f'{path}: key "{key}" must be one of {choices}, got {value!r}')


def _check_hashes(path: Path | OpenFile, entries: dict[str, Any]) -> None:
    hashes = entries["hashes"]
    _check_items(path, "hashes", hashes.values(), str)
    needed = {*HASHED_FILES, LABELS_HASH, SETTINGS_HASH}
    for key in sorted(needed - hashes.keys()):
        raise FolderError(f'{path}: key "hashes.{key}" is missing')
    for key in sorted(hashes.keys() - needed):
        raise FolderError(f'{path}: key "hashes.{key}" is unknown')
    if hashes[LABELS_HASH] != hash_of_json(entries["labels"]):
        raise FolderError(f'{path}: key "labels" does not match its hash; the order was changed')
    if hashes[SETTINGS_HASH] != _hash_of_settings(entries):
        raise FolderError(
            f"{path}: was damaged or edited since it was saved, it does not match its own hash; "
            "undo the edit, or load the classifier from a copy and save it with other settings"
        )


def _hash_of_settings(entries: Mapping[str, Any]) -> str:
    return hash_of_json({key: value for key, value in entries.items() if key != "hashes"})


def hash_of_json(value: Any) -> str:
    """Return the SHA-256 of a value as canonical JSON, in hexadecimal."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def hash_of_file(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal; it is read in pieces."""
    with _readable(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Reading.


@dataclass(frozen=True)
class ModelFolder:
    """A folder that `open_folder` has verified.

    Args:
        path: Where it lies.
        config: What its early_exit.json says.
        model_config: What its config.json says.
        files: The files that were verified, by name, and the calibration's, which whoever reads it
            verifies. They stay what they were, also when another folder takes their place.
    """

    path: Path
    config: EarlyExitConfig
    model_config: dict[str, Any]
    files: Mapping[str, OpenFile] = field(repr=False, compare=False)

    @property
    def shape(self) -> ModelShape:
        """The widths that decide what the model costs."""
        students = self.config.students
        return ModelShape.from_config(
            self.model_config,
            len(self.config.labels),
            teacher_head=self.config.teacher_head,
            pooling=students.pooling,
            student_width=students.width,
            student_heads=students.num_heads,
        )

    @property
    def is_in_place(self) -> bool:
        """Whether this folder, and not a later one, still lies at its path."""
        return self.files[EARLY_EXIT_FILE].is_in_place

    def text_tokenizer(self) -> TextTokenizer:
        """Return the tokenizer, which cuts texts to the model's length.

        Raises:
            FolderError: A file is damaged, or names no padding token.
        """
        tokenizer, config = self.files[TOKENIZER_FILE], self.files[TOKENIZER_CONFIG_FILE]
        return TextTokenizer.from_files(tokenizer, config, self.config.max_length)


def open_folder(path: str | Path) -> ModelFolder:
    """Verify a model folder, before anything is computed with it.

    All files are there, early_exit.json is understood, config.json names the same labels in the
    same order and the same number of layers, no token id lies outside `vocab_size` of
    config.json (that the embedding matrix has so many rows is for `check_tensors` to say), and
    every file that decides an answer has the hash it was saved with. A folder that is replaced in
    the meantime is opened again.

    Args:
        path: The folder; `~` is understood, links are followed.

    Raises:
        FolderError: Anything of this is not so; the message names the file.
    """
    path = _expanded(path)
    for attempt in range(1, SWAP_ATTEMPTS + 1):
        lay_here = _identity(path)
        try:
            return _opened(path)
        except FolderError:
            if attempt == SWAP_ATTEMPTS or lay_here == _identity(path):
                raise
    raise AssertionError("the last attempt returns or raises")


def _opened(path: Path) -> ModelFolder:
    with _readable(path):
        _settle_before_reading(path.resolve())
        files = _open_files(path)
        config = EarlyExitConfig.read(files[EARLY_EXIT_FILE])
        for name in HASHED_FILES:
            if name not in files:
                raise FolderError(f"{path / name}: is missing; the folder is not complete")
        model_config = _read_json(files[MODEL_CONFIG_FILE])
        check_agreement(path, config, model_config, _largest_token_id(files[TOKENIZER_FILE]))
        for name in HASHED_FILES:
            if files[name].sha256 != config.hashes[name]:
                raise _changed(path / name)
    return ModelFolder(path, config, model_config, files)


def _identity(path: Path) -> tuple[int, int] | None:
    """Return which folder lies at a path, if one does."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def check_tensors(
    file: str | Path,
    expected: Mapping[str, tuple[int, ...]],
    found: Mapping[str, tuple[int, ...]],
) -> None:
    """Refuse a file whose tensors are not exactly the expected ones.

    Raises:
        FolderError: A tensor is missing, unexpected or of another shape; the message names the
            first few, with their shapes.
    """
    problems = [
        f"tensor {name} is missing, expected {list(shape)}"
        for name, shape in expected.items()
        if name not in found
    ]
    problems += [
        f"tensor {name} is unexpected, of shape {list(shape)}"
        for name, shape in found.items()
        if name not in expected
    ]
    problems += [
        f"tensor {name} is {list(found[name])}, expected {list(shape)}"
        for name, shape in expected.items()
        if name in found and tuple(found[name]) != tuple(shape)
    ]
    if problems:
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise FolderError(f"{file}: {'; '.join(problems[:3])}{more}")


def _open_files(path: Path) -> dict[str, OpenFile]:
    """Open what a model folder has, or say what the path is instead of one."""
    if not path.exists():
        raise FolderError(f"{path}: there is no such folder")
    if not path.is_dir():
        raise FolderError(f"{path}: is a file, not a model folder")
    names = (EARLY_EXIT_FILE, *HASHED_FILES, CALIBRATION_FILE)
    files = {name: OpenFile(path / name) for name in names if (path / name).is_file()}
    if EARLY_EXIT_FILE in files:  # as opened: a look before may have been into another folder
        return files
    if MODEL_CONFIG_FILE in files:
        raise FolderError(
            f"{path}: a plain Hugging Face checkpoint, it has no {EARLY_EXIT_FILE}; distil it with "
            f"`fastbert distill {path} TEXTS --output DIR`"
        )
    raise FolderError(f"{path}: not a FastBERT model folder, it has no {EARLY_EXIT_FILE}")


def check_agreement(
    path: Path, config: EarlyExitConfig, model_config: dict[str, Any], largest_token_id: int
) -> None:
    """Refuse a config.json or a tokenizer that speaks of another model.

    Args:
        path: The folder that messages name.
        config: What early_exit.json says, or will say.
        model_config: What config.json says.
        largest_token_id: The largest that the tokenizer gives.

    Raises:
        FolderError: Labels, layers or vocabularies differ.
    """
    file = path / MODEL_CONFIG_FILE
    labels = _labels_of(file, config, model_config)
    if labels != config.labels:
        raise FolderError(
            f"{file}: the labels of id2label are {list(labels)}, those of {EARLY_EXIT_FILE} are "
            f"{list(config.labels)}; the order matters"
        )
    try:
        num_layers = config_value(model_config, "num_hidden_layers")
        rows = config_value(model_config, "vocab_size")
    except ValueError as error:
        raise FolderError(f"{file}: {error}") from error
    if num_layers != config.num_layers:
        raise FolderError(
            f"{file}: has {num_layers} layers, {EARLY_EXIT_FILE} says {config.num_layers}"
        )
    if largest_token_id >= rows:
        raise FolderError(
            f"{path / TOKENIZER_FILE}: the vocabulary is larger than the embedding matrix: "
            f"it has the token id {largest_token_id}, vocab_size of {MODEL_CONFIG_FILE} is {rows}"
        )


def _labels_of(
    file: Path, config: EarlyExitConfig, model_config: dict[str, Any]
) -> tuple[str, ...]:
    names = model_config.get("id2label")
    if names is None and config.teacher_head == "paper":
        return config.labels  # a plain encoder need not name any
    if names is None:
        names = {"0": "LABEL_0", "1": "LABEL_1"}  # transformers leaves its default out
    keys = [str(index) for index in range(len(names))] if isinstance(names, dict) else []
    if not keys or names.keys() != set(keys):
        raise FolderError(f'{file}: key "id2label" must name the classes 0, 1, … by number')
    return tuple(str(names[key]) for key in keys)


def _largest_token_id(path: Path | OpenFile) -> int:
    tokenizer = _read_json(path)
    try:
        vocabulary = tokenizer["model"]["vocab"]
        ids = [token["id"] for token in tokenizer.get("added_tokens", [])]
        # Unigram models list their pieces, the others map them to ids.
        ids += vocabulary.values() if isinstance(vocabulary, dict) else [len(vocabulary) - 1]
        return int(max(ids))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FolderError(f"{path}: has no vocabulary that can be read") from error


def _changed(path: Path) -> FolderError:
    return FolderError(
        f"{path}: does not match the hash in {EARLY_EXIT_FILE}; the file was damaged or changed "
        "since the folder was saved, restore it from a copy"
    )


def _read_json(path: Path | OpenFile, *, strict: bool = False) -> dict[str, Any]:
    """Read a JSON object; `strict` refuses a key given twice and numbers JSON does not have."""
    hooks: dict[str, Any] = {}
    if strict:
        hooks = {"object_pairs_hook": _without_twins, "parse_constant": _refuse_constant}
    with _readable(path):
        content = path.read_bytes()
    try:
        entries = json.loads(content.decode(), **hooks)
    except (ValueError, RecursionError) as error:
        raise FolderError(f"{path}: is not JSON: {error}") from error
    if not isinstance(entries, dict):
        raise FolderError(f"{path}: must hold a JSON object")
    return entries


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError("a key is given twice")
    return entries


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number in JSON")


def _expanded(path: str | Path) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError as error:  # ~nobody
        raise FolderError(f"{path}: {error}") from error


@contextmanager
def _readable(path: Path | OpenFile) -> Iterator[None]:
    """Turn what the system says about a file into an error that names it."""
    try:
        yield
    except OSError as error:
        raise FolderError(f"{path}: cannot be read: {error.strerror or error}") from error


# Writing.


@contextmanager
def staged_folder(target: str | Path) -> Iterator[Path]:
    """Give an empty folder to fill, which takes the place of `target` when all went well.

    The model in `target` is replaced as a whole; what is not on the list `OWN_FILES` moves on into
    the new folder. If filling or renaming fails, is interrupted or killed, `target` stays as it
    was. Of two processes that save to one place at a time, one wins.

    Args:
        target: Where the folder shall lie: a path that is free, an empty folder or an earlier model
            folder. Its parents are made.

    Raises:
        FolderError: `target` is a file, a folder of something else or of links, or it cannot be
            written, such as when the disk is full.
    """
    target = _expanded(target).resolve()
    with _writable(target):
        refuse_what_is_not_ours(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        _settle_interrupted_saves(target)
        with _working_folder(target) as (work, mode):
            staging = work / "new"
            staging.mkdir()
            with _writable(target, staging):
                yield staging
                _flush(staging, mode)
                _swap(staging, target)


def seal(staging: Path, config: EarlyExitConfig) -> EarlyExitConfig:
    """Write early_exit.json, the last file of a folder that is otherwise complete.

    Args:
        staging: A folder with all files of the model.
        config: What to write; its hashes and versions are filled in here.

    Returns:
        The config as written.

    Raises:
        FolderError: A file is missing, or the files speak of another model than `config`.
    """
    largest = _largest_token_id(staging / TOKENIZER_FILE)
    check_agreement(staging, config, _read_json(staging / MODEL_CONFIG_FILE), largest)
    hashes = {name: hash_of_file(staging / name) for name in HASHED_FILES}
    found = installed_versions(PACKAGES.values())
    versions = {name: found[package] for name, package in PACKAGES.items() if package in found}
    config = replace(config, versions=versions)
    entries = json.loads(config.to_json())  # as it will be read
    hashes[LABELS_HASH] = hash_of_json(entries["labels"])
    hashes[SETTINGS_HASH] = _hash_of_settings(entries)
    config = replace(config, hashes=hashes)
    (staging / EARLY_EXIT_FILE).write_text(config.to_json(), encoding="utf-8")
    return config


def copy_folder(source: ModelFolder, target: str | Path) -> None:
    """Save a verified folder under another name, or under its own; only what is on the list.

    Raises:
        FolderError: `target` cannot be written, see `staged_folder`, or `source` is no longer what
            it was when it was opened.
    """
    with staged_folder(target) as staging:
        fill_staging(source, staging)


def fill_staging(source: ModelFolder, staging: Path) -> None:
    """Copy what is on the list from a verified folder into a staged one.

    Raises:
        FolderError: `source` is no longer what it was when it was opened.
    """
    for name in own_files(source.path):
        (staging / name).parent.mkdir(exist_ok=True)
        shutil.copy2(source.path / name, staging / name)
    if open_folder(staging).config != source.config:
        raise FolderError(f"{source.path}: was replaced since it was opened; open it again")


def own_files(folder: Path) -> list[Path]:
    """Return the files in a folder that are on the list, relative to it."""
    return [name for name in _entries(folder) if _is_own(folder, name)]


def _foreign(folder: Path) -> list[Path]:
    """Return the files and folders in a folder that are not on the list, relative to it."""
    return [name for name in _entries(folder) if not _is_own(folder, name)]


def _entries(folder: Path) -> list[Path]:
    """Return all that lies in a folder, relative to it; for an export, all that lies in that."""
    paths: list[Path] = []
    for path in folder.iterdir():
        is_export = path.name in EXPORT_SUFFIXES and path.is_dir() and not path.is_symlink()
        paths += path.iterdir() if is_export else [path]
    return sorted(path.relative_to(folder) for path in paths)


def _is_own(folder: Path, name: Path) -> bool:
    listed = any(fnmatchcase(name.as_posix(), pattern) for pattern in OWN_FILES)
    return listed and (folder / name).is_file()


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    versions = {}
    for package in packages:
        with suppress(PackageNotFoundError):  # a folder can be saved again without torch
            versions[package] = version(package)
    return versions


def refuse_what_is_not_ours(target: Path) -> None:
    """Refuse a place where saving would replace something else than a model folder.

    Raises:
        FolderError: `target` is a file, a folder of other things, or one that others share.
    """
    refuse_what_others_share(target)
    try:
        names = os.listdir(target)  # in one look: another process may be replacing the folder
    except FileNotFoundError:
        return
    except NotADirectoryError as error:
        if not target.exists():  # a file is among its parents, which making them will say
            return
        raise FolderError(f"{target}: is a file; name a folder to save to") from error
    if names and EARLY_EXIT_FILE not in names:
        raise FolderError(
            f"{target}: holds other files and no {EARLY_EXIT_FILE}, so it is not replaced; "
            "name an empty or a new folder"
        )


def refuse_what_others_share(target: Path) -> None:
    """Refuse to write into the cache of the Hub, or where links would be replaced by files.

    Raises:
        FolderError: Later loads would find what was written, instead of what was downloaded.
    """
    place = target.resolve()
    cached = place.parent.name == "snapshots" and place.parents[1].name.startswith("models--")
    if cached or _holds_links(place):
        raise FolderError(
            f"{target}: lies in the cache of the Hub or is made of links, so nothing is written "
            "to it; save the classifier to a folder of your own with `save_pretrained(DIR)`, and "
            "use that one"
        )


def _holds_links(folder: Path) -> bool:
    """Return whether a file of a model, or its folder of exports, is a link."""
    own = (path for pattern in (*EXPORT_SUFFIXES, *OWN_FILES) for path in folder.glob(pattern))
    try:
        return any(path.is_symlink() for path in own)
    except FileNotFoundError:  # another process has just replaced the folder, and looked itself
        return False


# A save works in a folder beside its target: `new` is being filled, `old-0` is what stood at the
# target until the swap, `left-0` the same when the swap is done and only what is not ours has to be
# moved out of it, and `lock` is locked as long as the process lives, however it dies.


def _prefix(target: Path) -> str:
    """Return how the working folders of a target are named, short whatever its own name is."""
    return f".fastbert-save-{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:8]}-"


@contextmanager
def _working_folder(target: Path) -> Iterator[tuple[Path, int]]:
    """Make a locked working folder, and settle it at the end; also yield the mode of new files."""
    work = Path(tempfile.mkdtemp(prefix=_prefix(target), dir=target.parent))
    lock = None
    try:
        # `lock` appears locked, so one that is not locked has lost its process.
        lock = os.open(work / "locking", os.O_RDWR | os.O_CREAT, 0o666)
        with suppress(OSError):  # some network disks have no locks: nobody cleans up there
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.rename(work / "locking", work / "lock")
        yield work, os.fstat(lock).st_mode & 0o777
    finally:
        try:
            _settle(work, target)
        finally:
            if lock is not None:
                os.close(lock)


def _settle_interrupted_saves(target: Path) -> None:
    """Undo and remove what killed processes left of saves to `target`."""
    for work in target.parent.glob(f"{_prefix(target)}*"):
        try:
            lock = os.open(work / "lock", os.O_RDWR)
        except OSError:
            continue  # just starting, just ended, or not ours to touch
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue  # at work
        else:
            _settle(work, target)
        finally:
            os.close(lock)


def _settle_before_reading(target: Path) -> None:
    """Settle what killed processes left, and let one that is just swapping `target` finish."""
    for _ in range(SWAP_ATTEMPTS):
        _settle_interrupted_saves(target)
        if target.exists() or not _is_being_swapped(target):
            return
        time.sleep(SWAP_SECONDS)


def _is_being_swapped(target: Path) -> bool:
    return any(target.parent.glob(f"{_prefix(target)}*/old-*"))


def lies_here(path: str | Path) -> bool:
    """Return whether anything lies at a path, also while a save is between its two renames."""
    path = _expanded(path)
    with _readable(path):
        return path.exists() or _is_being_swapped(path.resolve()) or path.exists()


def _settle(work: Path, target: Path) -> None:
    """Put the old folder back if nothing took its place; else save what is not ours from it."""
    replaced = sorted(work.glob("old-*"))
    if replaced and not target.exists():
        try:
            os.rename(replaced[-1], target)
        except OSError as error:
            raise FolderError(
                f"{target}: the folder that was there could not be put back: {error.strerror}; "
                f"it is safe in {replaced[-1]}, move it"
            ) from error
    _retire(work)
    for left in sorted(work.glob("left-*"), reverse=True):  # the latest comes first to its names
        if target.exists():
            _carry_over(left, target)
    if not any(work.glob("old-*")) and not any(work.glob("left-*")):
        shutil.rmtree(work, ignore_errors=True)  # nothing but `new`, which is ours alone


def _retire(work: Path) -> None:
    """Say of what a save has replaced that it is never to be put back."""
    with suppress(OSError):  # else the next save or load does it
        for old in sorted(work.glob("old-*")):
            os.rename(old, old.with_name(old.name.replace("old", "left")))


def _carry_over(left: Path, target: Path) -> None:
    """Move what is not ours from a replaced folder into the one in its place; remove the rest.

    A name that is taken is never overwritten: what has it stays where it is, and a warning says so.
    """
    for _ in range(SWAP_ATTEMPTS):
        for name in _foreign(left):
            with suppress(OSError):  # the name is taken, or another process swaps the target
                _move(left / name, target / name)
        with suppress(OSError):  # something is left, or has just come
            _remove_own(left)
            return
        if not target.exists():
            time.sleep(SWAP_SECONDS)
    names = ", ".join(map(str, _foreign(left)))
    logger.warning(
        "%s: %s of the folder that was replaced could not be moved into the new one, where the "
        "name may be taken; it is kept in %s, move it from there", target, names, left,
    )  # fmt: skip


def _move(source: Path, place: Path) -> None:
    """Move a file or a folder to a name that is free.

    Raises:
        OSError: The name is taken, or its folder is not there.
    """
    if source.parent.name in EXPORT_SUFFIXES:
        place.parent.mkdir(exist_ok=True)
    if os.path.lexists(place):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(place))
    os.rename(source, place)


def _remove_own(folder: Path) -> None:
    """Remove a model by the list, and then the folder.

    Raises:
        OSError: Something else is in it.
    """
    for name in own_files(folder):
        (folder / name).unlink()
    for runtime in EXPORT_SUFFIXES:
        with suppress(FileNotFoundError):
            (folder / runtime).rmdir()
    folder.rmdir()


def _flush(staging: Path, mode: int) -> None:
    """Bring a folder to the disk itself, each file with the mode that new files have here."""
    for path in [*staging.rglob("*"), staging]:
        if path.is_file():
            path.chmod(mode)  # safetensors makes its files readable by the owner alone
        sync_to_disk(path)


def sync_to_disk(path: Path) -> None:
    """Wait until a file or a folder is on the disk itself, where a power cut cannot reach it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _swap(staging: Path, target: Path) -> None:
    """Move the staging folder to the target, and what was there out of the way."""
    for attempt in range(SWAP_ATTEMPTS):
        refuse_what_is_not_ours(target)
        with suppress(FileNotFoundError):  # nothing was there
            os.rename(target, staging.with_name(f"old-{attempt}"))
        try:
            os.rename(staging, target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            continue  # another process has saved here between the two renames
        _retire(staging.parent)
        sync_to_disk(target.parent)
        return
    raise FolderError(f"{target}: not saved, another process keeps saving here; try again")


@contextmanager
def _writable(target: Path, staging: Path | None = None) -> Iterator[None]:
    """Turn a failed write into an error that says what became of the target."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if _is_disk_full(error):
            reason = f"the disk is full: {_written(staging):,} bytes were written and then no more"
        else:
            reason = str(error)
        raise FolderError(f"{target}: not saved, {reason}; what was there is unchanged") from error


def _is_disk_full(error: Exception) -> bool:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return os.strerror(errno.ENOSPC) in str(error)  # safetensors and shutil tell by text alone


def _written(staging: Path | None) -> int:
    files = [] if staging is None else [path for path in staging.rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files)
