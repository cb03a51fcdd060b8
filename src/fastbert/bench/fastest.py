"""The export that is the fastest on this processor: each that there is, tried beside the others."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from fastbert.bench.contenders import Target, loaded_models
from fastbert.bench.results import Failure
from fastbert.errors import ExportError
from fastbert.export.export import SAMPLE_SOURCE, export_model
from fastbert.folder.export import ExportManifest
from fastbert.folder.export_times import ExportTimes, fastest
from fastbert.folder.read import open_folder
from fastbert.folder.write import refuse_what_others_share
from fastbert.processor import usable_cores
from fastbert.running import PRECISIONS, Precision
from fastbert.runtime.fastest import measured_times
from fastbert.system import runtimes
from fastbert.text import Text


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
    texts: Sequence[Text] | None = None,
    source: str = SAMPLE_SOURCE,
) -> Fastest:
    """Export a model folder for the runtime, and in the precision, that is the fastest here.

    Each that is installed and that the processor computes in is exported to a temporary folder, and
    all take turns on all cores at full depth, one text at a time and in batches. An export that
    answers otherwise than torch does not take part, and a line says why.

    Args:
        folder: A model folder; an earlier export for the runtime that is taken is replaced.
        precision: Try this one alone, such as `fp32`, which answers as torch does.
        texts: Texts to compare with torch on; see `export_model`.
        source: What to call these texts.

    Raises:
        ExportError: No export answers as torch does, or the folder's model cannot be exported.
        FolderError: The folder is damaged or cannot be written.
    """
    opened = open_folder(folder)
    refuse_what_others_share(opened.path)
    failures: list[Failure] = []
    targets = list(_targets(precision))
    with loaded_models(opened, targets, usable_cores(), failures, texts) as models:
        tried = {f"{model.runtime} {model.precision}": model for model in models}
        backends = {name: model.classifier.backend for name, model in tried.items()}
        times = measured_times(backends, opened.text_tokenizer())
    if not times:
        told = "; ".join(f"{failure.name}: {failure.reason}" for failure in failures)
        raise ExportError(f"{opened.path}: no export can be used here: {told}")
    kept = Target.read(fastest(times).replace(" ", ":"))
    assert kept.runtime != "torch"
    assert kept.precision is not None
    manifest = export_model(
        folder, runtime=kept.runtime, precision=kept.precision, texts=texts, source=source
    )
    return Fastest(manifest, times)


def _targets(precision: Precision | None) -> Iterator[Target]:
    for runtime, here in runtimes().items():
        if runtime in PRECISIONS:
            for candidate in cast(list[Precision], here):
                if precision in (None, candidate):
                    yield Target(runtime, candidate)
