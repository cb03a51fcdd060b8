"""Reading a model folder: what is checked before anything is computed with it.

Reading trusts nothing: whatever does not fit is a `FolderError` that names the file. No pickle is
ever opened. Nothing here imports torch or transformers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastbert.errors import FolderError
from fastbert.files.disk import expanded, readable
from fastbert.files.open_file import OpenFile
from fastbert.folder.config import EarlyExitConfig
from fastbert.folder.names import (
    CALIBRATION_FILE,
    EARLY_EXIT_FILE,
    HASHED_FILES,
    MODEL_CONFIG_FILE,
    TOKENIZER_CONFIG_FILE,
    TOKENIZER_FILE,
)
from fastbert.folder.saves import SWAP_ATTEMPTS, settle_before_reading
from fastbert.folder.strict_json import read_json
from fastbert.shape import ModelShape, config_value
from fastbert.text import TextTokenizer


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
        return self.config.shape(self.model_config)

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


def open_folder(path: str | Path, known: Mapping[str, OpenFile] | None = None) -> ModelFolder:
    """Verify a model folder, before anything is computed with it.

    All files are there, early_exit.json is understood, config.json names the same labels in the
    same order and the same number of layers, no token id lies outside `vocab_size` of
    config.json (that the embedding matrix has so many rows is for `check_tensors` to say), and
    every file that decides an answer has the hash it was saved with. A folder that is replaced in
    the meantime is opened again.

    Args:
        path: The folder; `~` is understood, links are followed.
        known: Open files by name; those that still lie there unchanged are not read again.

    Raises:
        FolderError: Anything of this is not so; the message names the file.
    """
    path = expanded(path)
    for attempt in range(1, SWAP_ATTEMPTS + 1):
        lay_here = _identity(path)
        try:
            return _opened(path, known or {})
        except FolderError:
            if attempt == SWAP_ATTEMPTS or lay_here == _identity(path):
                raise
    raise AssertionError("the last attempt returns or raises")


def _opened(path: Path, known: Mapping[str, OpenFile]) -> ModelFolder:
    with readable(path):
        settle_before_reading(path.resolve())
        files = _open_files(path, known)
        config = EarlyExitConfig.read(files[EARLY_EXIT_FILE])
        for name in HASHED_FILES:
            if name not in files:
                raise FolderError("is missing; the folder is not complete", path=path / name)
        model_config = read_json(files[MODEL_CONFIG_FILE])
        check_agreement(path, config, model_config, largest_token_id(files[TOKENIZER_FILE]))
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
        raise FolderError(f"{'; '.join(problems[:3])}{more}", path=file)


def _open_files(path: Path, known: Mapping[str, OpenFile]) -> dict[str, OpenFile]:
    """Open what a model folder has, or say what the path is instead of one."""
    if not path.exists():
        raise FolderError("there is no such folder", path=path)
    if not path.is_dir():
        raise FolderError("is a file, not a model folder", path=path)
    names = (EARLY_EXIT_FILE, *HASHED_FILES, CALIBRATION_FILE)
    files = {
        name: _open_file(path / name, known.get(name)) for name in names if (path / name).is_file()
    }
    if EARLY_EXIT_FILE in files:  # as opened: a look before may have been into another folder
        return files
    if MODEL_CONFIG_FILE in files:
        raise FolderError(
            f"a plain Hugging Face checkpoint, it has no {EARLY_EXIT_FILE}; distil it with "
            f"`fastbert distill {path} TEXTS --output DIR`",
            path=path,
        )
    raise FolderError(f"not a FastBERT model folder, it has no {EARLY_EXIT_FILE}", path=path)


def _open_file(path: Path, known: OpenFile | None) -> OpenFile:
    if known is not None and known.path == path and known.is_in_place and known.is_unchanged:
        return known
    return OpenFile(path)


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
            f"the labels of id2label are {list(labels)}, those of {EARLY_EXIT_FILE} are "
            f"{list(config.labels)}; the order matters",
            path=file,
        )
    try:
        num_layers = config_value(model_config, "num_hidden_layers")
        rows = config_value(model_config, "vocab_size")
    except ValueError as error:
        raise FolderError(str(error), path=file) from error
    if num_layers != config.num_layers:
        raise FolderError(
            f"has {num_layers} layers, {EARLY_EXIT_FILE} says {config.num_layers}", path=file
        )
    if largest_token_id >= rows:
        raise FolderError(
            "the vocabulary is larger than the embedding matrix: "
            f"it has the token id {largest_token_id}, vocab_size of {MODEL_CONFIG_FILE} is {rows}",
            path=path / TOKENIZER_FILE,
        )


def _labels_of(
    file: Path, config: EarlyExitConfig, model_config: dict[str, Any]
) -> tuple[str, ...]:
    names = model_config.get("id2label")
    if names is None and config.teacher_head != "pretrained":
        return config.labels  # a plain encoder need not name any
    if names is None:
        names = {"0": "LABEL_0", "1": "LABEL_1"}  # transformers leaves its default out
    keys = [str(index) for index in range(len(names))] if isinstance(names, dict) else []
    if not keys or names.keys() != set(keys):
        raise FolderError('key "id2label" must name the classes 0, 1, … by number', path=file)
    return tuple(str(names[key]) for key in keys)


def largest_token_id(path: Path | OpenFile) -> int:
    """Return the largest token id that a tokenizer.json gives."""
    tokenizer = read_json(path)
    try:
        vocabulary = tokenizer["model"]["vocab"]
        ids = [token["id"] for token in tokenizer.get("added_tokens", [])]
        # Unigram models list their pieces, the others map them to ids.
        ids += vocabulary.values() if isinstance(vocabulary, dict) else [len(vocabulary) - 1]
        return int(max(ids))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FolderError("has no vocabulary that can be read", path=path) from error


def _changed(path: Path) -> FolderError:
    return FolderError(
        f"does not match the hash in {EARLY_EXIT_FILE}; the file was damaged or changed "
        "since the folder was saved, restore it from a copy",
        path=path,
    )
