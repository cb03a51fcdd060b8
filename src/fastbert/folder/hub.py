"""Model folders on the Hugging Face Hub: exactly the files of one model come down and go up.

What is fetched is `early_exit.json`, then what it names, and one export's manifest, then what that
names; all of the commit that `early_exit.json` came from, so that a push in between mixes nothing.
A repository that is not ours costs one small request. What a repository holds besides is neither
fetched nor touched.
"""

from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    RemoteEntryNotFoundError,
)

from fastbert.errors import FolderError
from fastbert.folder.config import EarlyExitConfig
from fastbert.folder.export import read_manifest_file
from fastbert.folder.names import (
    CALIBRATION_FILE,
    CARD_FILE,
    EARLY_EXIT_FILE,
    EXPORT_FILES,
    FIGURE_FILE,
    HASHED_FILES,
    MANIFEST_FILE,
)
from fastbert.folder.read import ModelFolder
from fastbert.folder.write import copy_folder
from fastbert.running import PACKAGES, RuntimeName


def fetch_folder(
    repo_id: str, revision: str | None, token: str | None, runtime: RuntimeName
) -> Path:
    """Download a model folder into the Hub's cache, with the export that shall run, if any.

    Args:
        repo_id: A Hub name such as `someone/model`.
        revision: Branch, tag or commit.
        token: For a private repository.
        runtime: What shall run the model; for `auto` the first runtime that is installed and that
            the repository holds an export for.

    Returns:
        The folder of the commit in the cache.

    Raises:
        FolderError: There is no such repository, it holds no model of ours, or the Hub cannot be
            reached and the cache does not hold the model.
    """
    try:
        sealed = hf_hub_download(repo_id, EARLY_EXIT_FILE, revision=revision, token=token)
    except RemoteEntryNotFoundError as error:
        raise FolderError(
            f"{repo_id}: not a FastBERT model, the repository has no {EARLY_EXIT_FILE}; if it is a "
            f"fine-tuned classifier, distil it with `fastbert distill {repo_id} TEXTS --output DIR`"
        ) from error
    except (HFValidationError, HfHubHTTPError, EntryNotFoundError) as error:
        raise _unreachable(
            repo_id, "no such folder, and the Hub could not give it", error
        ) from error
    config = EarlyExitConfig.read(Path(sealed))
    snapshot = _Snapshot(repo_id, Path(sealed).parent, token)
    try:
        for name in HASHED_FILES:
            snapshot.fetch(name)
        if config.calibration is not None:
            snapshot.fetch(CALIBRATION_FILE)
        for name in (CARD_FILE, FIGURE_FILE):
            snapshot.fetch_if_there(name)
        _fetch_export(snapshot, config.num_layers, runtime)
    except (HfHubHTTPError, EntryNotFoundError) as error:
        raise _unreachable(repo_id, "the Hub could not give all of it", error) from error
    return snapshot.path


@dataclass(frozen=True)
class _Snapshot:
    """One commit of a repository.

    Args:
        repo_id: The repository.
        path: Its folder in the cache, which is called like the commit.
        token: For a private repository.
    """

    repo_id: str
    path: Path
    token: str | None

    def fetch(self, name: str) -> Path:
        """Return where a file of the commit lies, downloaded if need be."""
        commit = self.path.name
        return Path(hf_hub_download(self.repo_id, name, revision=commit, token=self.token))

    def fetch_if_there(self, name: str) -> Path | None:
        """Do the same; None where there is no such file, or none that can be reached."""
        known = try_to_load_from_cache(self.repo_id, name, revision=self.path.name)
        if known is not None:  # a path, or that the commit has no such file
            return Path(known) if isinstance(known, str) else None
        with suppress(EntryNotFoundError):
            return self.fetch(name)
        return None


def _fetch_export(snapshot: _Snapshot, num_layers: int, runtime: RuntimeName) -> None:
    """Download the export that `export_to_run` will choose."""
    names = {
        "torch": [],
        "auto": [name for name, package in PACKAGES.items() if find_spec(package)],
    }
    for name in names.get(runtime, [runtime]):
        manifest = snapshot.fetch_if_there(f"{name}/{MANIFEST_FILE}")
        if manifest is not None:
            again = f"export it again with `fastbert export DIR --runtime {name}`, and push that"
            for file in read_manifest_file(manifest, num_layers, again).files:
                snapshot.fetch(f"{name}/{file}")
            return


def push_folder(
    folder: ModelFolder, repo_id: str, private: bool | None, token: str | None, message: str
) -> str:
    """Upload what is on the list of a model's files, and return the address of the commit.

    Exports and a calibration of an earlier model, which the folder has no more, are removed from
    the repository; nothing else in it is.

    Args:
        folder: A verified folder.
        repo_id: A Hub name, made if it is not there.
        private: Whether to make a private repository.
        token: Of an account that may write.
        message: Of the commit.

    Raises:
        FolderError: The repository holds another model, or the folder was replaced.
    """
    api = HfApi(token=token)
    repo = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    there = api.list_repo_files(repo)
    other = [name for name in HASHED_FILES if name in there]
    if other and EARLY_EXIT_FILE not in there:
        raise FolderError(
            f"{repo}: holds another model ({', '.join(other)}, no {EARLY_EXIT_FILE}), so it is not "
            "overwritten; name a new repository"
        )
    with TemporaryDirectory() as parent:
        copy = Path(parent) / "model"
        copy_folder(folder, copy)
        commit = api.upload_folder(
            repo_id=repo,
            folder_path=copy,
            commit_message=message,
            delete_patterns=[CALIBRATION_FILE, *EXPORT_FILES],
        )
    return commit.commit_url


def _unreachable(repo_id: str, what: str, error: Exception) -> FolderError:
    return FolderError(f"{repo_id}: {what}: {str(error).splitlines()[0]}")
