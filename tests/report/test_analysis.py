from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score

from fastbert.exits.criteria import uncertainty
from fastbert.exits.recorded import RecordedExits
from fastbert.head_shapes import PaperHead
from fastbert.report import analysis
from fastbert.report.analysis import Table
from fastbert.shape import ModelShape
from tests.report import several_labels
from tests.report.one_label import EXITS, ROWS, SHAPE, made_up


def left_after(logits: np.ndarray, speed: float) -> np.ndarray:
    """Return each row's exit layer by another road: one row after the other, by the definition."""
    layers = []
    for row in range(logits.shape[1]):
        for layer, scores in enumerate(logits[:, row], start=1):
            p = np.exp(scores) / np.exp(scores).sum()
            if -(p * np.log(p)).sum() / np.log(len(p)) < speed or layer == len(logits):
                layers.append(layer)
                break
    return np.array(layers)


def where(table: Table, **values: Any) -> Table:
    return [row for row in table if all(row[name] == value for name, value in values.items())]


def test_each_speed_has_its_quality_and_cost() -> None:
    report = made_up()
    logits, truth = report.recorded.recorded, report.truth
    [row] = where(analysis.tradeoff(report), series="speed", setting=0.7)

    layers = left_after(logits, 0.7)
    answers = logits[layers - 1, np.arange(ROWS)].argmax(axis=-1)
    spent = SHAPE.row_flops(layers, report.lengths)
    assert row["accuracy"] == np.mean(answers == truth)
    assert row["macro_f1"] == pytest.approx(f1_score(truth, answers, average="macro"))
    assert row["agreement"] == np.mean(answers == logits[-1].argmax(axis=-1))
    assert row["mean_exit_layer"] == layers.mean()
    assert row["speedup_flops"] == SHAPE.full_flops(report.lengths).sum() / spent.sum()


def test_speed_0_is_the_full_model() -> None:
    [row] = where(analysis.tradeoff(made_up()), series="speed", setting=0.0)
    assert (row["speedup_flops"], row["agreement"], row["mean_exit_layer"]) == (1, 1, EXITS)


def test_a_cut_model_runs_its_layers_and_one_classifier() -> None:
    report = made_up()
    cuts = where(analysis.tradeoff(report), series="cut")
    assert [row["setting"] for row in cuts] == [1, 2, 3, 4, 5]

    spent = sum(
        SHAPE.embedding_flops(n) + 2 * SHAPE.layer_flops(n) + SHAPE.student_flops(n)[1]
        for n in map(int, report.lengths)
    )
    assert cuts[1]["speedup_flops"] == pytest.approx(SHAPE.full_flops(report.lengths).sum() / spent)
    answers = report.recorded.recorded[1].argmax(axis=-1)
    assert cuts[1]["accuracy"] == np.mean(answers == report.truth)
    assert cuts[-1]["speedup_flops"] == 1


def test_calibrated_points_are_taken_as_they_are_given() -> None:
    point = {"thresholds": [0.1] * 4, "accuracy": 0.75, "mean_exit_layer": 2.5, "other": "ignored"}
    [row] = where(analysis.tradeoff(made_up(points=[point])), series="calibrated")
    assert row == {
        "series": "calibrated",
        "setting": 1,
        "accuracy": 0.75,
        "macro_f1": None,
        "agreement": None,
        "mean_exit_layer": 2.5,
        "speedup_flops": None,
    }


def test_time_is_compared_with_speed_0() -> None:
    timings = [{"speed": 0.5, "seconds": 2.0, "accuracy": 0.8}, {"speed": 0, "seconds": 5.0}]
    table = analysis.time_tradeoff(made_up(timings=timings))
    assert [(row["speed"], row["speedup_time"]) for row in table] == [(0.0, 1.0), (0.5, 2.5)]
    assert analysis.time_tradeoff(made_up(timings=timings[:1])) == []


def test_each_answer_is_in_the_bin_of_its_uncertainty() -> None:
    report = made_up()
    table = analysis.luha(report)
    assert sorted({row["layer"] for row in table}) == [1, 2, 3, 4, 5]
    for layer in (1, 4):
        values = uncertainty(report.recorded.recorded[layer - 1])
        right = report.recorded.recorded[layer - 1].argmax(axis=-1) == report.truth
        rows = where(table, layer=layer)
        assert [row["rows"] for row in rows] == np.histogram(values, 10, (0, 1))[0].tolist()
        hits = sum(row["rows"] * row["accuracy"] for row in rows if row["rows"])
        assert hits == pytest.approx(right.sum())


def test_a_bin_without_rows_has_no_accuracy_and_1_belongs_to_the_last_bin() -> None:
    logits = np.zeros((2, 4, 3))  # as uncertain as can be
    report = made_up(
        num_layers=2,
        recorded=RecordedExits(logits),
        truth=np.array([0, 0, 1, 2]),
        lengths=np.array([5, 6, 7, 8]),
        shape=ModelShape(32, 64, 2, 3, (PaperHead(),)),
    )
    rows = where(analysis.luha(report), layer=1)
    assert [row["rows"] for row in rows] == [0] * 9 + [4]
    assert [row["accuracy"] for row in rows] == [None] * 9 + [0.5]


def test_exit_layers_count_where_rows_leave() -> None:
    report = made_up()
    table = analysis.exit_layers(report)
    assert list(dict.fromkeys(row["setting"] for row in table)) == [
        "speed 0.3",
        "speed 0.5",
        "speed 0.8",
    ]
    counts = [row["rows"] for row in where(table, setting="speed 0.8")]
    layers = left_after(report.recorded.recorded, 0.8).tolist()
    assert counts == [layers.count(layer) for layer in (1, 2, 3, 4, 5)]


def test_calibrated_points_are_replayed_from_their_doubts() -> None:
    doubts = np.ones((EXITS - 1, ROWS))
    doubts[1, :30] = 0.2
    doubts[3, :50] = 0.2
    points = [{"thresholds": [0.3, threshold, 0.3, 0.3]} for threshold in (0.2, 0.3)]
    table = analysis.exit_layers(made_up(points=points, doubts=doubts))
    by_point = [
        [row["rows"] for row in where(table, setting=f"calibrated point {number}")]
        for number in (1, 2)
    ]
    assert by_point == [[0, 0, 0, 50, ROWS - 50], [0, 30, 0, 20, ROWS - 50]]


def test_uncertainty_is_spread_over_the_rows_that_reach_a_layer() -> None:
    report = made_up(doubts=np.linspace(0, 1, (EXITS - 1) * ROWS).reshape(EXITS - 1, ROWS))
    table = analysis.uncertainty_by_layer(report)
    values = uncertainty(report.recorded.recorded[2])
    [everyone] = where(table, measure="uncertainty", speed=0.0, layer=3)
    assert (everyone["rows"], everyone["median"]) == (ROWS, np.median(values))

    [there] = where(table, measure="uncertainty", speed=0.5, layer=3)
    reached = left_after(report.recorded.recorded, 0.5) >= 3
    assert there["rows"] == reached.sum()
    assert there["p25"] == pytest.approx(np.percentile(values[reached], 25))
    assert [row["layer"] for row in where(table, measure="doubt")] == [1, 2, 3, 4]


def test_training_counts_epochs_through_both_stages() -> None:
    history = {
        "students": [{"epoch": 1, "loss": 3.0, "speedup_flops": 2.0}],
        "teacher": [{"epoch": 1, "accuracy": 0.8}, {"epoch": 2, "accuracy": 0.9}],
    }
    table = analysis.training(made_up(history=history))
    assert [(row["stage"], row["step"], row["epoch"]) for row in table] == [
        ("teacher", 1, 1),
        ("teacher", 2, 2),
        ("students", 3, 1),
    ]
    assert analysis.training(made_up()) == []


def test_classes_are_sorted_by_where_their_rows_leave() -> None:
    report = made_up()
    assert report.truth is not None
    layers = left_after(report.recorded.recorded, 0.5)
    table = analysis.per_class(report)
    means = [row["mean_exit_layer"] for row in table]
    assert means == sorted(means, reverse=True)
    [row] = where(table, **{"class": "perhaps"})
    assert (row["rows"], row["mean_exit_layer"]) == (
        np.sum(report.truth == 1),
        layers[report.truth == 1].mean(),
    )
    teacher = report.recorded.recorded[-1].argmax(axis=-1)
    assert row["teacher_accuracy"] == np.mean(teacher[report.truth == 1] == 1)


def test_examples_are_early_wrong_and_the_most_certain_come_first() -> None:
    texts = [f"text {row}\n" + "word " * 99 for row in range(ROWS)]
    report = made_up(texts=texts)
    assert report.truth is not None
    examples = analysis.early_and_wrong(report)

    layers = left_after(report.recorded.recorded, 0.5)
    answers = report.recorded.recorded[layers - 1, np.arange(ROWS)].argmax(axis=-1)
    wrong = np.flatnonzero((answers != report.truth) & (layers < EXITS))
    assert len(examples) == min(len(wrong), 20) > 0
    for example in examples:
        row = example["row"] - 1
        assert row in wrong
        assert example["label"] == report.labels[report.truth[row]]
        assert example["answer"] == report.labels[answers[row]]
        assert example["exit_layer"] == layers[row]
        assert example["text"].startswith(f"text {row} word")
        assert len(example["text"]) == 240
    values = [example["uncertainty"] for example in examples]
    assert values == sorted(values)


def test_without_labels_quality_is_agreement_with_the_teacher() -> None:
    report = made_up(truth=None)
    assert report.quality == "agreement with the teacher"
    table = analysis.tradeoff(report)
    assert all(row["accuracy"] == row["agreement"] for row in table)
    assert {row["exit"] for row in analysis.luha(report)} == {"student"}
    assert {row["teacher_accuracy"] for row in analysis.per_class(report)} == {1.0}


@pytest.mark.parametrize(("layers", "shown"), [(1, [1]), (2, [1, 2]), (12, [1, 4, 8, 11, 12])])
def test_a_few_layers_are_shown(layers: int, shown: list[int]) -> None:
    assert analysis.shown_layers(layers) == shown


def labels_left_after(logits: np.ndarray, speed: float) -> np.ndarray:
    """Return each row's exit layer where its labels' own entropies are small in the mean."""
    layers = []
    for row in range(logits.shape[1]):
        for layer, scores in enumerate(logits[:, row], start=1):
            p = 1 / (1 + np.exp(-scores))
            bits = -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
            if bits.mean() < speed or layer == len(logits):
                layers.append(layer)
                break
    return np.array(layers)


def test_several_labels_are_judged_by_the_f1_that_is_meant_and_leave_by_their_own_doubt() -> None:
    report = several_labels.made_up()
    logits, truth = report.recorded.recorded, report.truth
    [row] = where(analysis.tradeoff(report), series="speed", setting=0.45)

    layers = labels_left_after(logits, 0.45)
    assert set(layers) == {1, 2, 3, 4}
    answers = logits[layers - 1, np.arange(len(layers))] > 0
    assert report.quality == "micro F1"
    assert row["accuracy"] == pytest.approx(f1_score(truth, answers, average="micro"))
    assert row["macro_f1"] == pytest.approx(f1_score(truth, answers, average="macro"))
    by_row = f1_score(truth, answers, average="samples", zero_division=1)
    assert row["row_f1"] == pytest.approx(by_row)
    assert row["mean_exit_layer"] == layers.mean()


def test_a_share_of_the_rows_is_judged_by_a_mean_over_them() -> None:
    report = several_labels.made_up()
    logits, truth = report.recorded.recorded, report.truth
    assert truth is not None
    layers = labels_left_after(logits, 0.5)
    answers = logits[layers - 1, np.arange(len(layers))] > 0
    table = analysis.per_class(report)
    assert {row["label"] for row in table} == {"calm", "glad", "sad"}
    [glad] = where(table, label="glad")
    mine = truth[:, 1]
    assert (glad["rows"], glad["mean_exit_layer"]) == (mine.sum(), layers[mine].mean())
    by_row = f1_score(truth[mine], answers[mine], average="samples")
    assert glad["accuracy"] == pytest.approx(by_row)
    assert sum(row["rows"] for row in table) == truth.sum()  # once for each of its labels

    rows = where(analysis.luha(report), layer=2)
    assert sum(row["rows"] for row in rows) == len(truth)
    right = f1_score(truth, logits[1] > 0, average="samples", zero_division=1)
    weighted = sum(row["rows"] * row["accuracy"] for row in rows if row["rows"])
    assert weighted / len(truth) == pytest.approx(right)


def test_a_label_that_no_row_has_is_left_out() -> None:
    report = several_labels.made_up()
    assert report.truth is not None
    table = analysis.per_class(replace(report, truth=report.truth & [True, True, False]))
    assert {row["label"] for row in table} == {"calm", "glad"}


def test_examples_name_all_labels_of_an_answer() -> None:
    report = several_labels.made_up()
    assert report.truth is not None
    examples = analysis.early_and_wrong(report)
    names = np.array(report.labels)
    told = [", ".join(names[held]) or "none" for held in report.truth]
    assert len(examples) > 3
    assert {example["label"].count(",") for example in examples} > {0}
    for example in examples:
        row, layer = example["row"] - 1, example["exit_layer"]
        answer = report.recorded.recorded[layer - 1, row] > 0
        assert example["label"] == told[row] != example["answer"]
        assert example["answer"] == (", ".join(names[answer]) or "none")


@pytest.mark.parametrize(
    ("point", "worth"),
    [
        ({"micro_f1": 0.75, "row_f1": 0.5, "agreement": 0.25}, (0.75, 0.5)),
        ({"agreement": 0.25}, (None, None)),
    ],
)
def test_calibrated_points_are_read_by_the_metrics_of_the_task(
    point: dict[str, float], worth: tuple[float | None, float | None]
) -> None:
    report = several_labels.made_up(points=[point])
    [row] = where(analysis.tradeoff(report), series="calibrated")
    assert (row["accuracy"], row["row_f1"], row["agreement"]) == (*worth, 0.25)


def test_runs_and_epochs_are_read_by_the_metric_that_is_meant() -> None:
    report = several_labels.made_up(
        timings=[{"speed": 0.0, "seconds": 2.0, "micro_f1": 0.75, "row_f1": 0.5}],
        history={"teacher": [{"epoch": 1, "micro-f1": 0.625}]},
    )
    assert [row["accuracy"] for row in analysis.time_tradeoff(report)] == [0.75]
    assert [row["accuracy"] for row in analysis.training(report)] == [0.625]


@pytest.mark.parametrize("change", [{"truth": None}, {"truth_from": "big-model"}])
def test_against_a_model_several_labels_are_judged_by_agreement(change: dict[str, Any]) -> None:
    report = several_labels.made_up(**change)
    assert report.quality.startswith("agreement with ")
    [row] = where(analysis.tradeoff(report), series="cut", setting=2)
    right = report.recorded.recorded[-1] > 0 if report.truth is None else report.truth
    answers = report.recorded.recorded[1] > 0
    by_row = f1_score(right, answers, average="samples", zero_division=1)
    assert row["accuracy"] == pytest.approx(by_row)
    assert report.column(report.metric) == "agreement"
