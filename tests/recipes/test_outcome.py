"""What a run leaves: its settings, its history and what was measured."""

from pathlib import Path
from typing import Any

import pytest
import torch

from fastbert import answering
from fastbert.calibration.goal import Goal
from fastbert.calibration.solve import LEAST_ROWS
from fastbert.classifier import FastBertClassifier
from fastbert.data.example import Example
from fastbert.folder.calibration import load_calibration
from fastbert.folder.config import EarlyExitConfig
from fastbert.folder.read import ModelFolder, open_folder
from fastbert.nn.backend import TorchBackend
from fastbert.nn.model import FastBertModel
from fastbert.recipes import outcome
from fastbert.recipes.outcome import SHOWN_SPEEDS, known_truth, write_model
from fastbert.tasks.single_label import SingleLabel
from fastbert.text import TextTokenizer, TokenBatch
from tests.recipes.runs import STUDENTS, history_of, run
from tests.tiny import tiny_classifier
from tests.tiny_data import LABELS, examples, tiny_tokenizer, write_csv


@pytest.mark.parametrize(
    ("labels", "truth"),
    [(["b", "a"], [1, 0]), (["a", None], None), (["a", "odd"], None), ([], [])],
)
def test_the_truth_is_known_where_every_text_has_a_label_of_the_model(
    labels: list[str | None], truth: list[int] | None
) -> None:
    rows = [Example("made:1", "word1", label=label) for label in labels]
    known = known_truth(SingleLabel(("a", "b")), rows)
    assert truth == (None if known is None else known.tolist())


def test_the_folder_records_how_it_was_made_and_what_it_measured(uninterrupted: Path) -> None:
    config = FastBertClassifier.from_pretrained(uninterrupted).config
    assert config.training["fine_tuning"]["epochs"] == 2
    assert config.training["train"] == "train.csv"  # folders are published: no places of a machine
    assert str(uninterrupted.parent) not in (uninterrupted / "early_exit.json").read_text()
    assert [head.spelling for head in config.students] == [STUDENTS.heads] * 3
    assert config.training["students"]["heads"] == STUDENTS.heads
    assert [row["speed"] for row in config.evaluation] == [0.0, 0.1, 0.3, 0.5, 0.8, None]
    assert config.default is not None
    assert config.evaluation[-1]["goal"] == config.default.goal == {"max_drop": 0.005}
    assert config.evaluation[-1]["thresholds"] == list(config.default.thresholds)
    assert {row["rows"] for row in config.evaluation} == {30}
    assert (uninterrupted / "README.md").exists()


def test_the_folder_keeps_the_history_of_both_stages(uninterrupted: Path) -> None:
    history = history_of(uninterrupted)
    assert history.keys() == {"teacher", "students"}
    assert [epoch["epoch"] for epoch in history["teacher"]] == [1, 2]
    assert [epoch["epoch"] for epoch in history["students"]] == [1, 2]
    for epoch in history["teacher"]:
        assert epoch.keys() == {"epoch", "dev_loss", "accuracy"}
        assert 0 <= epoch["accuracy"] <= 1
    for epoch in history["students"]:
        judged = {"accuracy", "full", "agreement", "mean_exit_layer", "area"}
        assert epoch.keys() == {"epoch", "dev_loss"} | judged
        assert 1 <= epoch["mean_exit_layer"] <= 4
    figures = [epoch[name] for stage in history.values() for epoch in stage for name in epoch]
    assert all(type(figure) in (float, int) and figure >= 0 for figure in figures)


def test_the_table_is_measured_on_test_where_there_is_one(files: dict[str, Path]) -> None:
    test = write_csv(files["train"].with_name("test.csv"), examples(17, seed=9))
    assert {row["rows"] for row in run(files, test=test).config.evaluation} == {17}


def write(folder: Path, held_out: list[Example]) -> ModelFolder:
    """Write an untrained model as if it had been trained."""
    tiny_tokenizer().save_pretrained(folder / "tokenizer")
    tokenizer = TextTokenizer.from_folder(folder / "tokenizer", 16)
    names = dict(enumerate(LABELS))
    torch.manual_seed(0)
    teacher = tiny_classifier(
        "bert", id2label=names, label2id={label: number for number, label in names.items()}
    )
    model = FastBertModel(teacher, STUDENTS.heads)
    config = EarlyExitConfig(
        teacher_head="pretrained",
        task=model.task,
        num_layers=model.num_exits,
        max_length=16,
        students=model.student_shapes,
        training={"dev": "dev.csv"},
    )
    write_model(
        folder / "output",
        model,
        tokenizer,
        folder / "tokenizer",
        config,
        held_out,
        None,
        "dev.csv",
        Goal(max_drop=0.005),
    )
    return open_folder(folder / "output")


def test_dev_runs_through_the_model_once_and_a_sample_is_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, int] = {"record": 0, "classify": 0}
    for name in asked:
        original = getattr(answering, name)

        def counting(
            backend: TorchBackend,
            batch: TokenBatch,
            *rest: Any,
            name: str = name,
            original: Any = original,
            **options: Any,
        ) -> Any:
            asked[name] += len(batch.input_ids)
            return original(backend, batch, *rest, **options)

        monkeypatch.setattr(answering, name, counting)
    monkeypatch.setattr(outcome, "TIMED_TEXTS", 7)
    evaluation = write(tmp_path, examples(41)).config.evaluation
    assert asked == {"record": 41, "classify": 7 * len(evaluation)}
    assert {row["rows"] for row in evaluation} == {41}
    assert "on 7 of the texts" in " ".join((tmp_path / "output" / "README.md").read_text().split())


def test_too_few_held_out_texts_choose_no_default(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = write(tmp_path, examples(LEAST_ROWS - 1)).config
    assert config.default is None
    assert "19 held-out texts are too few to choose thresholds" in caplog.text
    assert [row["speed"] for row in config.evaluation] == list(SHOWN_SPEEDS)


def test_a_class_without_a_held_out_text_leaves_agreement_to_choose_by(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write(tmp_path, [row for row in examples(60) if row.label != "neutral"])
    assert "1 of 3 classes have no dev text, such as neutral" in caplog.text
    assert load_calibration(folder).truth is None
