"""The export that is the fastest on this processor: each that there is, tried beside the others."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from fastbert.errors import ExportError
from fastbert.export.export import SAMPLE_SOURCE, export_model, traced
from fastbert.folder.export import Export, ExportManifest, open_export
from fastbert.folder.export_times import ExportTimes, fastest
from fastbert.folder.read import open_folder
from fastbert.folder.write import copy_folder, refuse_what_others_share
from fastbert.running import PRECISIONS, Precision, Running, Runtime
from fastbert.runtime.fastest import measured_times
from fastbert.system import runtimes
from fastbert.text import Text

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fastest:
    """What was tried, and what is kept.

    Args:
        manifest: Of the export that lies in the folder now.
        times: What each took, by runtime and precision; what was refused is not among them.
    """

    manifest: ExportManifest
    times: dict[str, ExportTimes]

    @property
    def name(self) -> str:
        """Runtime and precision of what is kept."""
        return f"{self.manifest.runtime} {self.manifest.precision}"


def export_fastest(
    folder: str | Path,
    *,
    precision: Precision | None = None,
    threads: int | None = None,
    texts: Sequence[Text] | None = None,
    source: str = SAMPLE_SOURCE,
) -> Fastest:
    """Export a model folder for the runtime, and in the precision, that is the fastest here.

    Each that is installed and that the processor computes in is exported to a temporary folder, and
    all take turns at full depth, one text at a time and in batches. An export that answers
    otherwise than torch does not take part, and a line says why.

    Args:
        folder: A model folder; an earlier export for the runtime that is taken is replaced.
        precision: Try this one alone, such as `fp32`, which answers as torch does.
        threads: Processor threads; all cores by default.
        texts: Texts to compare with torch on; see `export_model`.
        source: What to call these texts.

    Raises:
        ExportError: No export answers as torch does, or the folder's model cannot be exported.
        FolderError: The folder is damaged or cannot be written.
    """
    opened = open_folder(folder)
    refuse_what_others_share(opened.path)
    shared: dict[str, Any] = {"texts": texts, "source": source, "pieces": traced(opened)}
    with TemporaryDirectory(prefix="fastbert-export-") as parent:
        copy = Path(parent) / "model"
        copy_folder(opened, copy)
        exports = dict(_tried(copy, precision, shared))
        times = measured_times(exports, opened.text_tokenizer(), Running(threads=threads))
    if not times:
        raise ExportError(f"{opened.path}: no export can be used here")
    kept = exports[fastest(times)]
    manifest = export_model(folder, runtime=kept.runtime, precision=kept.precision, **shared)
    return Fastest(manifest, times)


def _tried(
    copy: Path, precision: Precision | None, shared: dict[str, Any]
) -> Iterator[tuple[str, Export]]:
    """Yield each export by its name; its files stay open when the next one replaces it."""
    for runtime, candidate in _candidates(precision):
        name = f"{runtime} {candidate}"
        logger.info("trying %s", name)
        try:
            export_model(copy, runtime=runtime, precision=candidate, **shared)
        except ExportError as error:
            logger.warning("%s is left out: %s", name, error)
        else:
            yield name, open_export(open_folder(copy), runtime)


def _candidates(precision: Precision | None) -> Iterator[tuple[Runtime, Precision]]:
    for runtime, here in runtimes().items():
        if runtime in PRECISIONS:
            for candidate in cast(list[Precision], here):
                if precision in (None, candidate):
                    yield runtime, candidate
