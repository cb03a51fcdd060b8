"""Exports of a tiny model for every runtime and precision."""

import shutil
from pathlib import Path

import pytest

from fastbert.classifier import FastBertClassifier
from tests.exported import KINDS, export_all
from tests.tiny_folder import save_model


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each precision, exported for both runtimes; each student is of another kind."""
    source = save_model(
        tmp_path_factory.mktemp("model") / "model",
        "roberta",
        "paper/first/8:1,queries/3/8:1,queries/3/8/learned:1,mean",
    )
    copies = {}
    for precision in ("int8", "fp32"):
        copies[precision] = tmp_path_factory.mktemp(precision) / "model"
        export_all(source, [kind for kind in KINDS if kind[1] == precision])
        shutil.copytree(source, copies[precision])
    return copies


@pytest.fixture(scope="module", params=KINDS, ids="-".join)
def exported(request: pytest.FixtureRequest, folders: dict[str, Path]) -> FastBertClassifier:
    runtime, precision = request.param
    return FastBertClassifier.from_pretrained(folders[precision], runtime=runtime, threads=1)
