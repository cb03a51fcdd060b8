"""What the exports of a model folder took beside each other, by processor: `export_times.json`.

It decides no answer but which runtime gives it, so it is neither hashed nor needed: what cannot be
read, or speaks of exports that lie there no more, counts as nothing.
"""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from fastbert.errors import FolderError
from fastbert.files.whole_file import write_json
from fastbert.folder.export import read_manifest
from fastbert.folder.names import TIMES_FILE
from fastbert.folder.read import ModelFolder
from fastbert.folder.strict_json import hash_of_json
from fastbert.processor import processor_name, vector_extensions
from fastbert.running import Runtime
from fastbert.timing import Name


@dataclass(frozen=True)
class ExportTimes:
    """What a text takes through all layers.

    Args:
        alone_ms: Milliseconds of one that comes alone.
        bulk_ms: Milliseconds in a batch.
    """

    alone_ms: float
    bulk_ms: float

    @property
    def mean_ms(self) -> float:
        """The geometric mean, so that neither way outweighs the other."""
        return float((self.alone_ms * self.bulk_ms) ** 0.5)


def read_times(folder: ModelFolder, runtimes: Iterable[Runtime]) -> dict[Runtime, ExportTimes]:
    """Return what was measured on this processor of the exports that lie there now."""
    known = _read(folder).get(_this_processor(), {})
    found: dict[Runtime, ExportTimes] = {}
    for runtime in runtimes:
        with suppress(KeyError, TypeError, FolderError):
            measured = known[runtime]
            if measured["export"] == _identity(folder, runtime):
                found[runtime] = ExportTimes(measured["alone_ms"], measured["bulk_ms"])
    return found


def write_times(folder: ModelFolder, times: Mapping[Runtime, ExportTimes]) -> None:
    """Keep what was measured on this processor, beside what others measured.

    Raises:
        FolderError: An export is not sound, or the folder cannot be written.
    """
    measured = {
        runtime: {"export": _identity(folder, runtime), **asdict(time)}
        for runtime, time in times.items()
    }
    try:
        write_json(folder.path / TIMES_FILE, _read(folder) | {_this_processor(): measured})
    except OSError as error:
        raise FolderError(f"not written, {error}", path=folder.path / TIMES_FILE) from error


def fastest(times: Mapping[Name, ExportTimes]) -> Name:
    """Return the name of the fastest, alone and in bulk taken together."""
    return min(times, key=lambda name: times[name].mean_ms)


def _read(folder: ModelFolder) -> dict[str, Any]:
    try:
        found = json.loads((folder.path / TIMES_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _this_processor() -> str:
    """Return what times depend on: the name, and the extensions, which a system may hide."""
    return f"{processor_name()} ({' '.join(vector_extensions())})"


def _identity(folder: ModelFolder, runtime: Runtime) -> str:
    return hash_of_json(read_manifest(folder, runtime).files)
