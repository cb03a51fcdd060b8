"""Everything that the README, the first pages and the examples tell people to do works."""

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sysconfig
import tomllib
from pathlib import Path
from typing import Any

import pytest

from fastbert.cli import main
from fastbert.recipes.run import StudentSettings
from fastbert.recipes.train import train
from fastbert.training.stage import StageSettings
from tests.tiny import tiny_classifier, tiny_encoder
from tests.tiny_data import LABELS, examples, tiny_tokenizer, write_csv

ROOT = Path(__file__).parents[1]
PAGES = {
    page: (ROOT / page).read_text("utf-8")
    for page in ("README.md", "docs/quick-start.md", "docs/goals.md", "docs/runtimes.md")
}
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")])


def blocks(language: str) -> dict[str, str]:
    """Return the fenced blocks of a language on all pages, by page and number."""
    fenced = re.compile(rf"^```{language}\n(.*?)^```", re.DOTALL | re.MULTILINE)
    return {
        f"{page}:{number}": block
        for page, text in PAGES.items()
        for number, block in enumerate(fenced.findall(text), 1)
    }


PROGRAMS, COMMANDS = blocks("python"), blocks("bash")

pytestmark = pytest.mark.usefixtures("commands_trace_once")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the files that the pages speak of, in tiny."""
    here = tmp_path_factory.mktemp("prepared")
    write_csv(here / "train.csv", examples(40, seed=1))
    write_csv(here / "dev.csv", examples(20, seed=2))
    write_csv(here / "test.csv", examples(20, seed=4))
    write_csv(here / "texts.csv", examples(30, seed=3), labelled=False)
    names = dict(enumerate(LABELS))
    named: dict[str, Any] = {
        "id2label": names,
        "label2id": {label: number for number, label in names.items()},
    }
    models = {
        "my-encoder": tiny_encoder("bert", max_position_embeddings=130),
        "my-small-encoder": tiny_encoder("distilbert", max_position_embeddings=130),
        "my-classifier": tiny_classifier("bert", max_position_embeddings=130, **named),
        "my-large-classifier": tiny_classifier("electra", max_position_embeddings=130, **named),
    }
    for name, model in models.items():
        model.save_pretrained(here / name)
        tiny_tokenizer().save_pretrained(here / name)
    stage = StageSettings(epochs=1, learning_rate=1e-3)
    classifier = train(
        here / "train.csv",
        dev=here / "dev.csv",
        model=here / "my-encoder",
        output=here / "my-model",
        fine_tuning=stage,
        students=StudentSettings(stage=stage),
    )
    dev = examples(20, seed=2)
    texts, labels = [row.content for row in dev], [str(row.label) for row in dev]
    classifier.save_calibration(classifier.calibrate(texts, labels), "dev.csv")
    return here


@pytest.fixture
def workplace(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to a fresh copy of that folder."""
    here = tmp_path / "workplace"
    shutil.copytree(prepared, here)
    monkeypatch.chdir(here)
    return here


@pytest.mark.parametrize("source", PROGRAMS.values(), ids=PROGRAMS)
def test_the_programs_run(source: str, workplace: Path) -> None:
    exec(compile(source, "page", "exec"), {})


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.name)
def test_the_examples_run(
    example: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runpy.run_path(str(example), run_name="__main__")
    assert len(capsys.readouterr().out.splitlines()) >= 3
    assert len(example.read_text("utf-8").splitlines()) <= 45  # a screen


@pytest.mark.parametrize("block", COMMANDS.values(), ids=COMMANDS)
def test_the_commands_run(
    block: str, workplace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for line in block.splitlines():
        words = shlex.split(line, comments=True)
        if words[0] == "make":
            assert f"\n{words[1]}: " in (ROOT / "Makefile").read_text("utf-8")
        elif words[0] == "pip":
            [extra] = re.findall(r"\[(\w+)\]", line)
            project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
            assert extra in project["optional-dependencies"]
        elif "|" in words:
            scripts = sysconfig.get_path("scripts")
            environment = os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
            subprocess.run(["bash", "-o", "pipefail", "-c", line], env=environment, check=True)
        else:
            monkeypatch.setattr("sys.argv", words)
            with pytest.raises(SystemExit) as ended:
                main()
            assert ended.value.code == 0, capfd.readouterr().err


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\[[^\]]*\]\(([^)#\s]+)[^)\s]*\)", document.read_text("utf-8"))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (document.parent / link).exists()] == []
