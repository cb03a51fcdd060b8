"""What a run leaves: its settings, its history and what was measured."""

from pathlib import Path

import pytest

from fastbert.classifier import FastBertClassifier
from fastbert.data.example import Example
from fastbert.recipes.outcome import known_truth
from fastbert.tasks.single_label import SingleLabel
from tests.recipes.runs import STUDENTS, history_of, run
from tests.tiny_data import examples, write_csv


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
    assert config.students == STUDENTS.shape
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
        judged = {"accuracy", "agreement", "mean_exit_layer"}
        assert epoch.keys() == {"epoch", "dev_loss"} | judged
        assert 1 <= epoch["mean_exit_layer"] <= 4
    figures = [epoch[name] for stage in history.values() for epoch in stage for name in epoch]
    assert all(type(figure) in (float, int) and figure >= 0 for figure in figures)


def test_the_table_is_measured_on_test_where_there_is_one(files: dict[str, Path]) -> None:
    test = write_csv(files["train"].with_name("test.csv"), examples(17, seed=9))
    assert {row["rows"] for row in run(files, test=test).config.evaluation} == {17}
