"""Writing a model folder: it is complete or absent.

It is written beside its place, sealed by `early_exit.json`, which holds the hash of everything
that decides an answer, flushed to disk and renamed into place. Needs a POSIX system (file locks,
renaming folders).
"""

import errno
import json
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError

from fastbert.errors import FolderError
from fastbert.extras import installed_versions
from fastbert.files.disk import copy_file, expanded, hash_of_file, link_file, sync_to_disk
from fastbert.folder.config import LABELS_HASH, SETTINGS_HASH, EarlyExitConfig, hash_of_settings
from fastbert.folder.names import (
    EARLY_EXIT_FILE,
    EXPORT_SUFFIXES,
    HASHED_FILES,
    MODEL_CONFIG_FILE,
    OWN_FILES,
    TOKENIZER_FILE,
    own_files,
)
from fastbert.folder.read import ModelFolder, check_agreement, largest_token_id
from fastbert.folder.saves import SWAP_ATTEMPTS, retire, settle_interrupted_saves, working_folder
from fastbert.folder.strict_json import hash_of_json, read_json

PACKAGES = {"fastbert": "fastbert-kit"} | {
    name: name for name in ("torch", "transformers", "tokenizers")
}


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
    target = expanded(target).resolve()
    with _writable(target):
        refuse_what_is_not_ours(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        settle_interrupted_saves(target)
        with working_folder(target) as (work, mode):
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
    largest = largest_token_id(staging / TOKENIZER_FILE)
    check_agreement(staging, config, read_json(staging / MODEL_CONFIG_FILE), largest)
    hashes = {name: hash_of_file(staging / name) for name in HASHED_FILES}
    return reseal(staging, replace(config, hashes=hashes))


def reseal(staging: Path, config: EarlyExitConfig) -> EarlyExitConfig:
    """Write early_exit.json again where only that changes; no file is read.

    Args:
        staging: A folder that was sealed, or that `fill_staging` filled.
        config: What to write; its hashes of files are those of the folder.

    Returns:
        The config as written.
    """
    found = installed_versions(PACKAGES.values())
    versions = {name: found[package] for name, package in PACKAGES.items() if package in found}
    config = replace(config, versions=versions)
    entries = json.loads(config.to_json())  # as it will be read
    own = {
        LABELS_HASH: hash_of_json(entries["labels"]),
        SETTINGS_HASH: hash_of_settings(entries),
    }
    config = replace(config, hashes=config.hashes | own)
    (staging / EARLY_EXIT_FILE).write_text(config.to_json(), encoding="utf-8")
    return config


def copy_folder(source: ModelFolder, target: str | Path) -> None:
    """Save a verified folder under another name, or under its own; only what is on the list.

    Raises:
        FolderError: `target` cannot be written, see `staged_folder`, or `source` is no longer what
            it was when it was opened.
    """
    with staged_folder(target) as staging:
        _fill(source, staging, linked=())


def fill_staging(source: ModelFolder, staging: Path) -> None:
    """Bring what is on the list from a verified folder into the one that shall take its place.

    Weights and exports, which no save changes, get a second name where the disk can do that; what
    is written anew (early_exit.json, the calibration, the card) is copied.

    Raises:
        FolderError: `source` is no longer what it was when it was opened.
    """
    names = [name.as_posix() for name in own_files(source.path)]
    _fill(source, staging, [name for name in names if name in HASHED_FILES or "/" in name])


def _fill(source: ModelFolder, staging: Path, linked: Iterable[str]) -> None:
    """Link some of the files of a model and copy the others, each read at most once."""
    names, mode = own_files(source.path), _mode_of_new_files(staging)
    for name in names:
        path, place = source.path / name, staging / name
        place.parent.mkdir(exist_ok=True)
        opened = source.files.get(name.as_posix())
        if name.as_posix() in linked and link_file(path, place, mode):
            is_it = opened is None or opened.is_at(place)
        else:
            sha256 = copy_file(path, place)
            is_it = opened is None or opened.sha256 == sha256
        if not is_it:
            raise _replaced(source)
    if not source.is_in_place or not source.files.keys() <= {name.as_posix() for name in names}:
        raise _replaced(source)


def _replaced(source: ModelFolder) -> FolderError:
    return FolderError("was replaced since it was opened; open it again", path=source.path)


def _mode_of_new_files(folder: Path) -> int:
    """Return the mode that a new file in a folder has."""
    path = folder / "mode"
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL, 0o666)
    try:
        return stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)
        path.unlink()


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
        raise FolderError("is a file; name a folder to save to", path=target) from error
    if names and EARLY_EXIT_FILE not in names:
        raise FolderError(
            f"holds other files and no {EARLY_EXIT_FILE}, so it is not replaced; "
            "name an empty or a new folder",
            path=target,
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
            "lies in the cache of the Hub or is made of links, so nothing is written "
            "to it; save the classifier to a folder of your own with `save_pretrained(DIR)`, and "
            "use that one",
            path=target,
        )


def _holds_links(folder: Path) -> bool:
    """Return whether a file of a model, or its folder of exports, is a link."""
    own = (path for pattern in (*EXPORT_SUFFIXES, *OWN_FILES) for path in folder.glob(pattern))
    try:
        return any(path.is_symlink() for path in own)
    except FileNotFoundError:  # another process has just replaced the folder, and looked itself
        return False


def _flush(staging: Path, mode: int) -> None:
    """Bring a folder to the disk itself, each file with the mode that new files have here."""
    for path in [*staging.rglob("*"), staging]:
        if path.is_file():
            path.chmod(mode)  # safetensors makes its files readable by the owner alone
        sync_to_disk(path)


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
        retire(staging.parent)
        sync_to_disk(target.parent)
        return
    raise FolderError("not saved, another process keeps saving here; try again", path=target)


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
        raise FolderError(
            f"not saved, {reason}; what was there is unchanged", path=target
        ) from error


def _is_disk_full(error: Exception) -> bool:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return os.strerror(errno.ENOSPC) in str(error)  # safetensors and shutil tell by text alone


def _written(staging: Path | None) -> int:
    files = [] if staging is None else [path for path in staging.rglob("*") if path.is_file()]
    found = [path.stat() for path in files]
    return sum(file.st_size for file in found if file.st_nlink == 1)  # the others lay there before
