import json
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import pipeline

from fastbert import FastBertClassifier
from fastbert.data.example import Columns
from fastbert.data.read import load_examples
from fastbert.demo import (
    ROUNDS,
    run_demo,
    settings,
    speedups,
)
from fastbert.errors import DataError, TrainingError
from fastbert.recipes import stages
from fastbert.training.trainer import run_stage
from tests.tiny import tiny_encoder
from tests.tiny_data import LABELS, examples, tiny_tokenizer, write_csv


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the folder of an encoder that reads as many tokens as the demo wants."""
    folder = tmp_path_factory.mktemp("encoder")
    tiny_encoder("bert", max_position_embeddings=70).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, encoder: str) -> Iterator[tuple[Path, str]]:
    """Run the demo once in a folder of its own; return the folder and what was shown."""
    here = tmp_path_factory.mktemp("demo")
    write_csv(here / "own.csv", examples(100))
    shown = pytest.MonkeyPatch()
    with (
        pytest.MonkeyPatch.context() as patch,
        (here / "shown.txt").open("w") as file,
        (here / "said.txt").open("w") as said,
    ):
        patch.chdir(here)
        patch.setattr(sys, "stdout", file)
        patch.setattr(sys, "stderr", said)
        patch.setattr("fastbert.demo.SIGN_SECONDS", 0.1)
        run_demo(Path("my-demo"), model=encoder, data=Path("own.csv"))
    shown.chdir(here)
    yield here, (here / "shown.txt").read_text()
    shown.undo()


def test_it_shows_what_each_speed_gives_and_three_texts(demo: tuple[Path, str]) -> None:
    _, shown = demo
    classifier = FastBertClassifier.from_pretrained("my-demo")
    assert "FastBERT on own.csv. 50 train, 25 dev, 25 test texts." in " ".join(shown.split())
    for row in classifier.config.evaluation:
        assert f"{row['accuracy']:.1%}" in shown
        assert f"{row['mean_exit_layer']:.2f} of 4" in shown
    left = re.findall(r"\((?:0|1)\.\d\d\), left after layer [1-4] of 4$", shown, re.MULTILINE)
    assert len(left) == 3 * 2  # three texts, fast and as chosen
    assert "my-demo/README.md" in "".join(shown.split())


def test_off_a_terminal_it_says_that_work_goes_on(demo: tuple[Path, str]) -> None:
    here, _ = demo
    assert re.search(r"^demo: at work for \d+ s$", (here / "said.txt").read_text(), re.MULTILINE)


def test_speedups_are_paired_by_turns(
    demo: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = FastBertClassifier.from_pretrained("my-demo")
    shown = settings(classifier)
    assert [setting.speed for setting in (shown[0], shown[-1])] == [0.0, None]
    asked: list[object] = []
    turns = {setting.name: 1.0 + number for number, setting in enumerate(shown)}

    def time_rounds(runs: dict[str, Any], rounds: int) -> dict[str, np.ndarray]:
        asked.append((set(runs), rounds))
        busy = np.arange(1.0, rounds + 1)  # the machine becomes slower and slower
        return {name: turns[name] * busy for name in runs}

    monkeypatch.setattr("fastbert.demo.time_rounds", time_rounds)
    found = speedups(classifier, shown, examples(10))
    assert found == pytest.approx([1 / (1 + number) for number in range(len(shown))])
    assert asked == [(set(turns), ROUNDS)]
    assert ROUNDS >= 5


def test_the_last_line_is_a_command_that_works(demo: tuple[Path, str]) -> None:
    _, shown = demo
    path = sysconfig.get_path("scripts") + os.pathsep + os.environ["PATH"]
    run = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {shown.splitlines()[-1]}"],
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["label"] in LABELS


def test_the_split_lies_beside_the_model(demo: tuple[Path, str]) -> None:
    here, _ = demo
    own = load_examples(here / "own.csv", Columns(), needs_label=True)
    parts = [
        load_examples(here / "my-demo.data" / f"{name}.jsonl", Columns(), needs_label=True)
        for name in ("train", "dev", "test")
    ]
    assert sorted((row.text, row.label) for part in parts for row in part) == sorted(
        (row.text, row.label) for row in own
    )
    assert not Path("my-demo.training").exists()


def test_the_programs_on_the_model_card_work(
    demo: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    card = Path("my-demo/README.md").read_text(encoding="utf-8")
    with_fastbert, plain = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    exec(with_fastbert.replace("FOLDER_OR_HUB_NAME", "my-demo"), {})
    assert capsys.readouterr().out.split()[0] in LABELS

    exec(plain.replace("FOLDER_OR_HUB_NAME", "my-demo"), {})
    classify = pipeline("text-classification", model="my-demo")
    text = "word1 lovely word2"
    answer = FastBertClassifier.from_pretrained("my-demo").predict(text, speed=0.0)
    assert classify(text) == [{"label": answer.label, "score": pytest.approx(answer.score)}]


def test_a_demo_that_was_stopped_goes_on(
    tmp_path: Path, encoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_csv(tmp_path / "own.csv", examples(30, seed=1))
    output = tmp_path / "demo"
    with monkeypatch.context() as stopped:
        stopped.setattr(stages, "run_stage", _stop_after(1))
        with pytest.raises(KeyboardInterrupt):
            run_demo(output, model=encoder, data=data)
    assert not output.exists()

    write_csv(tmp_path / "other.csv", examples(30, seed=2))
    with pytest.raises(TrainingError, match=r"demo\.training: holds a stopped demo on other texts"):
        run_demo(output, model=encoder, data=tmp_path / "other.csv")

    # The first is done and must not run again: a third stage would stop it.
    monkeypatch.setattr(stages, "run_stage", _stop_after(2))
    run_demo(output, model=encoder, data=data)
    assert FastBertClassifier.from_pretrained(output).labels == LABELS


def test_texts_where_the_split_goes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "demo.data").mkdir()
    inside = write_csv(tmp_path / "demo.data" / "own.csv", examples(30, seed=1))
    with pytest.raises(DataError, match=r"own\.csv: lies where the demo writes its split"):
        run_demo(tmp_path / "demo", model="unread", data=inside)


def _stop_after(count: int) -> Callable[..., object]:
    """Return a `run_stage` that runs so many stages and stops the process before another."""
    left = iter([run_stage] * count)

    def run_one(*arguments: Any, **options: Any) -> object:
        run = next(left, None)
        if run is None:
            raise KeyboardInterrupt
        return run(*arguments, **options)

    return run_one
