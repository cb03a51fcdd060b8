"""Model folders that the command line has written, once for all processes of a run."""

import fcntl
import io
import json
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from fastbert import demo, evaluation
from fastbert.calibration.answerer import PartTimes
from fastbert.classifier import FastBertClassifier
from fastbert.cli.loading import quiet_transformers
from fastbert.cli.run import run
from fastbert.processor import processor_name
from fastbert.recipes import distill as distill_recipe
from fastbert.recipes import train as train_recipe
from tests.cli.commands import CALIBRATION_ROWS, Trained
from tests.tiny_data import examples, save_encoder, save_uncalibrated, write_csv

TIMES = PartTimes(start=0.7, layer=2.0, student=0.3, teacher=0.1, processor=processor_name())


def made_once(here: Path, make: Callable[[], Trained]) -> Trained:
    """Return what was made there; of all processes, the first that asks makes it."""
    here.mkdir(exist_ok=True)
    made = here / "made.json"
    with (here / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            made.write_text(json.dumps(asdict(make())))
        return Trained(**json.loads(made.read_text()))


def made_by(command: Sequence[str], folder: Path) -> Trained:
    """Run a command that writes to a folder."""
    with redirect_stdout(io.StringIO()) as stdout, redirect_stderr(io.StringIO()) as stderr:
        code = run(command)
    assert code == 0, stderr.getvalue()
    return Trained(str(folder), stdout.getvalue(), stderr.getvalue())


@pytest.fixture(scope="session")
def trained(traces: Path) -> Trained:
    here = traces.parent / "trained"

    def train() -> Trained:
        command = ["train", str(write_csv(here / "train.csv", examples(40, seed=1)))]
        command += ["--dev", str(write_csv(here / "dev.csv", examples(20, seed=2)))]
        command += ["--model", str(save_encoder(here / "encoder")), "--output", str(here / "model")]
        command += ["--max-length", "16", "--epochs", "1", "--distill-epochs", "1", "--no-bf16"]
        command += ["--scheme", "paper"]  # the shortest
        return made_by(command, here / "model")

    made = made_once(here, train)
    quiet_transformers()  # tests load the folder, also where another process ran the command
    return made


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Return a file of 13 labelled texts."""
    return write_csv(tmp_path / "texts.csv", examples(13, seed=3))


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "answers.jsonl"


@pytest.fixture(scope="session")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("dev") / "dev.csv", examples(CALIBRATION_ROWS, seed=4))


@pytest.fixture(scope="session")
def calibrated(trained: Trained, dev: Path, traces: Path) -> Trained:
    """Return a copy of the model, with what `calibrate --time` said of it."""
    here = traces.parent / "calibrated"

    def calibrate() -> Trained:
        copy = here / "a model"
        FastBertClassifier.from_pretrained(trained.folder).save_pretrained(copy)
        with pytest.MonkeyPatch.context() as patch:  # so that no threshold depends on the clock
            patch.setattr(evaluation, "part_times", lambda *_: TIMES)
            return made_by(["calibrate", str(copy), str(dev), "--time", "--batch-size", "16"], copy)

    return made_once(here, calibrate)


@pytest.fixture
def copied(trained: Trained, tmp_path: Path) -> str:
    """Return a folder of the model that a test may change; it is not calibrated."""
    return str(save_uncalibrated(Path(trained.folder), tmp_path / "copy"))


@pytest.fixture
def called(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Replace the work behind the commands by a note of what it was called with."""
    noted: dict[str, Any] = {}

    def note(*arguments: Any, **options: Any) -> FastBertClassifier:
        noted.update({"arguments": arguments, **options})
        return FastBertClassifier.from_pretrained(trained.folder)

    replaced = ((train_recipe, "train"), (distill_recipe, "distill"), (demo, "run_demo"))
    for module, name in replaced:
        monkeypatch.setattr(module, name, note)
    return noted
