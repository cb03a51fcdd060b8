"""The figures of an evaluation, each checked by another road."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastbert import evaluation as evaluation_module
from fastbert.calibration.answerer import PartTimes
from fastbert.calibration.drift import compare
from fastbert.classifier import FastBertClassifier
from fastbert.data.example import Example
from fastbert.errors import DataError, FolderError
from fastbert.evaluation import Evaluation, drift_of, evaluate, part_times
from fastbert.exits.criteria import EntropyCriterion, ThresholdCriterion
from fastbert.processor import processor_name
from fastbert.runtime.pieces import PieceBackend
from tests.tiny_data import LABELS, examples
from tests.tiny_folder import save_model

ROWS, SPEED = 35, 0.74


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> FastBertClassifier:
    return FastBertClassifier.from_pretrained(
        save_model(tmp_path_factory.mktemp("model") / "model", "bert")
    )


def test_each_figure_is_what_it_says(classifier: FastBertClassifier) -> None:
    rows = examples(ROWS, seed=11)
    full, fast = evaluate(classifier, rows, [0.0, SPEED], batch_size=8)

    answers = classifier.predict([row.text for row in rows], SPEED)
    layers = [answer.exit_layer for answer in answers]
    right = [answer.label == row.label for answer, row in zip(answers, rows, strict=True)]
    assert (fast.speed, fast.rows, fast.layers) == (SPEED, ROWS, classifier.num_layers)
    assert fast.accuracy == pytest.approx(np.mean(right))
    assert fast.mean_exit_layer == pytest.approx(np.mean(layers))
    assert fast.exit_layers == [layers.count(layer) for layer in range(1, fast.layers + 1)]
    assert fast.rows_per_second == pytest.approx(ROWS / fast.seconds)
    assert full.speedup_flops == 1.0
    assert full.exit_layers == [0] * (full.layers - 1) + [ROWS]
    assert fast.speedup_flops > 1.0
    assert fast.speedup_paper > full.speedup_paper


class CountingPieces(PieceBackend):
    """Pieces that answer at random, and count the segments that had to be made."""

    def __init__(self, num_exits: int) -> None:
        super().__init__(num_exits)
        self.made: list[tuple[int, int]] = []

    def make_segment(self, done: int, exit_layer: int) -> Any:
        self.made.append((done, exit_layer))

        def segment(feeds: Any) -> tuple[np.ndarray, np.ndarray]:
            rows, length = feeds["attention_mask"].shape
            logits = np.zeros((rows, len(LABELS)), np.float32)
            logits[:, 0] = feeds["attention_mask"].sum(axis=1) % 7 * exit_layer
            return np.zeros((rows, length, 5), np.float32), logits

        return segment


def test_nothing_is_compiled_while_the_clock_runs(
    classifier: FastBertClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = CountingPieces(classifier.num_layers)
    counted = FastBertClassifier(backend, classifier.tokenizer, classifier.folder)
    made: list[int] = []  # at each look at the clock
    real = time.perf_counter

    def looked_at() -> float:
        made.append(len(backend.made))
        return real()

    monkeypatch.setattr(time, "perf_counter", looked_at)
    evaluate(counted, examples(ROWS, seed=11), [0.0, SPEED, 1.0], batch_size=8)
    monkeypatch.undo()
    assert made[::2] == made[1::2]  # before and after each speed
    assert made[0] == 1
    assert made[-1] > 1


def test_macro_f1_averages_over_classes(classifier: FastBertClassifier) -> None:
    rows = examples(ROWS, seed=12)
    [evaluation] = evaluate(classifier, rows, [SPEED])
    answers = [answer.label for answer in classifier.predict([row.text for row in rows], SPEED)]
    scores = []
    for label in {row.label for row in rows} | set(answers):
        hits = sum(a == r.label == label for a, r in zip(answers, rows, strict=True))
        scores.append(2 * hits / (answers.count(str(label)) + sum(r.label == label for r in rows)))
    assert evaluation.macro_f1 == pytest.approx(np.mean(scores))


def test_a_class_that_is_never_answered_does_no_harm(classifier: FastBertClassifier) -> None:
    # FastBERT issue 7: precision of such a class was a division by zero.
    text = examples(1)[0].text
    answer = classifier.predict(text, 0.0).label
    other = next(label for label in LABELS if label != answer)
    rows = [Example("made:1", text, label=answer), Example("made:2", text, label=other)]
    [evaluation] = evaluate(classifier, rows, [0.0])
    assert evaluation.accuracy == 0.5
    assert evaluation.macro_f1 == pytest.approx((2 / 3 + 0) / 2)


@pytest.mark.parametrize("label", ["unheard-of", None])
def test_a_label_that_the_classifier_does_not_have_is_named(
    classifier: FastBertClassifier, label: str | None
) -> None:
    rows = [*examples(3), Example("made:4", "text", label=label)]
    with pytest.raises(DataError, match=rf"^made:4: label {label!r} is not among the labels"):
        evaluate(classifier, rows, [0.5])
    with pytest.raises(ValueError, match="at least one labelled text"):
        evaluate(classifier, [], [0.5])


def test_no_row_is_dropped_or_run_twice(classifier: FastBertClassifier) -> None:
    # FastBERT's evaluation dropped rows in `except: pass`, and ran each one twice.
    rows = [*examples(9), *examples(9)]
    [evaluation] = evaluate(classifier, rows, [0.5], batch_size=4)
    assert evaluation.rows == sum(evaluation.exit_layers) == 18


def test_the_batch_size_changes_the_time_and_nothing_else(classifier: FastBertClassifier) -> None:
    def figures(batch_size: int) -> Evaluation:
        [evaluation] = evaluate(classifier, examples(ROWS), [SPEED], batch_size)
        return evaluation

    one, many = figures(1).as_dict(), figures(16).as_dict()
    for name in one.keys() - {"seconds", "rows_per_second"}:
        assert one[name] == many[name], name


def test_figures_are_plain_values_that_json_takes(classifier: FastBertClassifier) -> None:
    [evaluation] = evaluate(classifier, examples(5), [0.3])
    assert set(evaluation.as_dict()) == {
        "speed",
        "accuracy",
        "macro_f1",
        "rows",
        "mean_exit_layer",
        "layers",
        "speedup_flops",
        "speedup_paper",
        "seconds",
        "rows_per_second",
        "exit_layers",
    }
    assert {type(value) for value in evaluation.as_dict().values()} == {float, int, list}


def test_evaluating_counts_the_students_that_the_criterion_watches(
    classifier: FastBertClassifier,
) -> None:
    assert not any(EntropyCriterion(0.0).watches(layer) for layer in range(1, 4))
    slow, never_leaving = evaluate(classifier, examples(ROWS), [0.0, 1e-9])
    assert slow.mean_exit_layer == never_leaving.mean_exit_layer == classifier.num_layers
    assert never_leaving.speedup_flops < slow.speedup_flops == 1.0


# Thresholds for a goal.


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> FastBertClassifier:
    """Return a classifier that is calibrated on 80 labelled texts."""
    folder = save_model(tmp_path_factory.mktemp("calibrated") / "model", "bert")
    classifier = FastBertClassifier.from_pretrained(folder)
    rows = examples(80, seed=13)
    texts, labels = [row.content for row in rows], [str(row.label) for row in rows]
    classifier.save_calibration(classifier.calibrate(texts, labels), "dev.csv")
    return classifier


def test_a_goals_figures_name_the_goal_and_its_thresholds(calibrated: FastBertClassifier) -> None:
    rows = examples(ROWS, seed=14)
    point = calibrated.speed_for(max_drop=0.1, confidence=0.8)
    saving = calibrated.speed_for(saving=0.5)
    promised, saved, full = evaluate(calibrated, rows, [point, saving, 0.0])

    figures = promised.as_dict()
    assert figures["speed"] is None
    assert figures["goal"] == {"max_drop": 0.1, "confidence": 0.8}
    assert figures["confidence"] == 0.8
    assert figures["thresholds"] == list(point.thresholds)
    assert saved.as_dict()["goal"] == {"saving": 0.5}
    assert saved.as_dict()["confidence"] is None
    assert full.as_dict().keys() == figures.keys() - {"goal", "confidence", "thresholds"}


def test_a_goals_figures_are_those_of_its_thresholds(calibrated: FastBertClassifier) -> None:
    rows = examples(ROWS, seed=15)
    point = calibrated.speed_for(saving=0.6)
    [found] = evaluate(calibrated, rows, [point], batch_size=4)

    answers = calibrated.predict([row.content for row in rows], saving=0.6)
    layers = [answer.exit_layer for answer in answers]
    right = [answer.label == row.label for answer, row in zip(answers, rows, strict=True)]
    assert found.accuracy == pytest.approx(np.mean(right))
    assert found.exit_layers == [layers.count(layer) for layer in range(1, found.layers + 1)]
    assert 1 < found.mean_exit_layer < found.layers  # else there is little to compare


def test_on_the_calibration_rows_the_figures_are_those_of_the_point(
    calibrated: FastBertClassifier,
) -> None:
    point = calibrated.speed_for(min_speedup=1.2)
    [found] = evaluate(calibrated, examples(80, seed=13), [point])
    assert point.accuracy == pytest.approx(found.accuracy)
    assert point.macro_f1 == pytest.approx(found.macro_f1)
    assert point.mean_exit_layer == pytest.approx(found.mean_exit_layer)
    assert point.speedup_flops == pytest.approx(found.speedup_flops)
    assert list(point.exit_layers) == found.exit_layers


def test_students_that_no_row_may_leave_at_are_not_paid_for(calibrated: FastBertClassifier) -> None:
    measure = calibrated.calibration.measure
    points = [
        replace(calibrated.speed_for(saving=0.0), criterion=ThresholdCriterion(measure, thresholds))
        for thresholds in ((0.0, 0.0, 0.0), (0.0, 1e-9, 0.0), (1e-9, 1e-9, 1e-9))
    ]
    none, one, all_ = evaluate(calibrated, examples(ROWS), points)
    assert {row.mean_exit_layer for row in (none, one, all_)} == {4.0}
    assert none.speedup_flops == 1.0 > one.speedup_flops > all_.speedup_flops
    cost_of_one, cost_of_all = 1 / one.speedup_flops - 1, 1 / all_.speedup_flops - 1
    assert cost_of_all == pytest.approx(3 * cost_of_one)


# Times.


@dataclass(frozen=True)
class ClockedBackend:
    """Says how long each part takes: the start 5 ms, a layer 10, a student 2, the teacher 1."""

    backend: Any
    now: list[float]
    starts: list[int]
    student_ms: int = 2

    @property
    def num_exits(self) -> int:
        return int(self.backend.num_exits)

    def start(self, batch: Any) -> Any:
        self.starts.append(len(batch))
        self._pass_time(5)
        return self.backend.start(batch)

    def advance(self, state: Any, exit_layer: int) -> Any:
        exit_ms = 1 if exit_layer == self.num_exits else self.student_ms
        self._pass_time(10 * (exit_layer - state.exit_layer) + exit_ms)
        return self.backend.advance(state, exit_layer)

    def keep(self, state: Any, rows: Any) -> Any:
        return self.backend.keep(state, rows)

    def merge(self, states: Any) -> Any:
        return self.backend.merge(states)

    def _pass_time(self, milliseconds: int) -> None:
        busy = len(self.starts) % 3 == 0  # something else runs meanwhile
        self.now[0] += milliseconds / 1_000 * (100 if busy else 1)


@pytest.fixture
def clocked(
    calibrated: FastBertClassifier, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FastBertClassifier]:
    now = [0.0]
    backend = ClockedBackend(calibrated.backend, now, [])
    monkeypatch.setattr(evaluation_module, "TIMED_TEXTS", 2)
    monkeypatch.setattr("fastbert.evaluation.time.perf_counter", lambda: now[0])
    yield FastBertClassifier(backend, calibrated.tokenizer, calibrated.folder)
    monkeypatch.undo()


def test_each_part_has_its_own_time_and_of_some_runs_the_median_counts(
    clocked: FastBertClassifier,
) -> None:
    times = part_times(clocked, examples(9))
    parts = [times.start, times.layer, times.student, times.teacher]
    assert parts == pytest.approx([5.0, 10.0, 2.0, 1.0])
    assert times.processor == processor_name()


def test_the_times_of_the_parts_make_up_the_latency(calibrated: FastBertClassifier) -> None:
    times = PartTimes(5.0, 10.0, 2.0, 1.0)
    timed = replace(calibrated.calibration, times=times)
    point = timed.solve(calibrated.speed_for(saving=0.5).goal)  # type: ignore[arg-type]  # it has one
    exit_layer = timed.recorded.replay(point.criterion).exit_layer
    asked = sum(exit_layer >= layer for layer in (1, 2, 3) if point.thresholds[layer - 1] > 0)
    by_hand = (
        times.start
        + times.layer * exit_layer.mean()
        + times.student * np.mean(asked)
        + times.teacher * (exit_layer == 4).mean()
    )
    assert point.latency_ms == pytest.approx(by_hand)


def test_a_part_that_noise_makes_negative_takes_no_time(clocked: FastBertClassifier) -> None:
    # With all exits it went faster than with the last alone, as on a busy machine.
    backend = replace(clocked.backend, student_ms=-2)  # type: ignore[type-var]  # is one
    times = part_times(FastBertClassifier(backend, clocked.tokenizer, clocked.folder), examples(9))
    assert times.student == 0
    assert times.layer == pytest.approx(10.0)


# Drift.


def test_the_calibrations_own_texts_are_no_drift(calibrated: FastBertClassifier) -> None:
    criterion = calibrated.speed_for(saving=0.5).criterion
    drift = drift_of(calibrated, examples(80, seed=13), criterion)
    assert drift.mean_exit_layer[0] == pytest.approx(drift.mean_exit_layer[1])
    assert drift.warnings() == []


def test_texts_that_behave_otherwise_are_noticed(calibrated: FastBertClassifier) -> None:
    criterion = calibrated.speed_for(saving=0.5).criterion
    one_text = [*examples(1)] * 60  # all leave at one layer
    drift = drift_of(calibrated, one_text, criterion, batch_size=7)
    now = calibrated.record([row.content for row in one_text])
    assert drift == compare(calibrated.calibration.recorded, now, criterion, calibrated.config.task)
    [layer] = {calibrated.predict(one_text[0].content, criterion).exit_layer}
    assert drift.mean_exit_layer[1] == layer
    assert "leave at other layers" in drift.warnings()[0]


def test_of_many_texts_a_sample_from_all_over_them_is_compared(
    calibrated: FastBertClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    record = FastBertClassifier.record

    def noting(self: FastBertClassifier, texts: list[str], batch_size: int = 32) -> object:
        seen.append(texts)
        return record(self, texts, batch_size)

    monkeypatch.setattr(FastBertClassifier, "record", noting)
    monkeypatch.setattr(evaluation_module, "DRIFT_TEXTS", 5)
    rows = examples(41)
    drift_of(calibrated, rows, EntropyCriterion(0.5))
    assert seen == [[rows[number].text for number in (0, 10, 20, 30, 40)]]


def test_drift_needs_a_calibration(tmp_path: Path) -> None:
    plain = FastBertClassifier.from_pretrained(save_model(tmp_path / "model", "bert"))
    with pytest.raises(FolderError, match="is not calibrated"):
        drift_of(plain, examples(20), EntropyCriterion(0.5))
