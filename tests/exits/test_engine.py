"""The adaptive loop: who leaves where, what is computed, and in which order answers come back."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastbert.exits.criteria import EntropyCriterion, ThresholdCriterion, uncertainty
from fastbert.exits.engine import classify, record
from fastbert.exits.measures import MaxProbability
from fastbert.exits.recorded import RecordedExits, ReplayState

EXITS, ROWS, CLASSES = 4, 50, 3


def random_logits(seed: int = 0, rows: int = ROWS) -> np.ndarray:
    scale = np.linspace(0.5, 6, EXITS)[:, None, None]  # deeper exits are surer
    return np.random.default_rng(seed).normal(size=(EXITS, rows, CLASSES)) * scale


@dataclass(frozen=True)
class CountingBackend(RecordedExits):
    """Counts the rows that each layer and each exit is run for."""

    layer_rows: list[int] = field(default_factory=list)
    exit_rows: list[int] = field(default_factory=list)

    def advance(self, state: ReplayState, exit_layer: int) -> tuple[ReplayState, np.ndarray]:
        self.layer_rows.extend([len(state.rows)] * (exit_layer - state.exit_layer))
        self.exit_rows.append(len(state.rows))
        return super().advance(state, exit_layer)


@pytest.mark.parametrize("speed", [0.0, 0.3, 0.9, 1.0])
def test_each_row_leaves_at_its_first_certain_exit(speed: float) -> None:
    recorded = random_logits()
    result = RecordedExits(recorded).replay(EntropyCriterion(speed))

    certain = uncertainty(recorded) < speed  # [exits, rows]
    certain[-1] = True  # the teacher always answers
    assert result.exit_layer.tolist() == (certain.argmax(axis=0) + 1).tolist()


@pytest.mark.parametrize("thresholds", [1, EXITS - 2, EXITS, 23])
def test_thresholds_of_another_depth_are_refused(thresholds: int) -> None:
    backend = CountingBackend(random_logits())
    criterion = ThresholdCriterion(MaxProbability(), (0.5,) * thresholds)
    with pytest.raises(
        ValueError, match=rf"each of the 3 students of this model, got {thresholds};"
    ):
        classify(backend, np.arange(ROWS), criterion)
    assert backend.exit_rows == []
    classify(backend, np.arange(ROWS), ThresholdCriterion(MaxProbability(), (0.5,) * (EXITS - 1)))


def test_each_row_gets_the_answer_of_the_exit_at_which_it_left() -> None:
    recorded = random_logits()
    result = RecordedExits(recorded).replay(EntropyCriterion(0.4))

    expected = recorded[result.exit_layer - 1, np.arange(ROWS)]
    assert np.array_equal(result.logits, expected)
    assert len(set(result.exit_layer.tolist())) > 2  # the case is not a trivial one


def test_rows_that_never_pass_the_threshold_get_the_teachers_answer() -> None:
    # BitVoyage and bert-squeeze left them all-zero, so speed 0 predicted class 0 for all.
    recorded = random_logits()
    result = RecordedExits(recorded).replay(EntropyCriterion(0.0))

    assert np.array_equal(result.logits, recorded[-1])
    assert (result.exit_layer == EXITS).all()


def test_the_exit_layer_belongs_to_the_row_not_to_the_batch() -> None:
    recorded = random_logits()
    together = RecordedExits(recorded).replay(EntropyCriterion(0.5)).exit_layer
    alone = [
        int(RecordedExits(recorded[:, [row]]).replay(EntropyCriterion(0.5)).exit_layer[0])
        for row in range(ROWS)
    ]
    assert together.tolist() == alone


def test_rows_that_left_are_not_computed_again() -> None:
    backend = CountingBackend(random_logits())
    result = classify(backend, np.arange(ROWS), EntropyCriterion(0.5))

    reached = [(result.exit_layer >= layer).sum() for layer in range(1, EXITS + 1)]
    assert backend.layer_rows == reached
    assert backend.exit_rows == reached


def test_nothing_runs_after_the_last_row_has_left() -> None:
    certain = np.broadcast_to(np.array([50.0, 0.0, 0.0]), (EXITS, ROWS, CLASSES))
    backend = CountingBackend(certain)
    result = classify(backend, np.arange(ROWS), EntropyCriterion(0.5))

    assert backend.layer_rows == [ROWS]
    assert (result.exit_layer == 1).all()


def test_students_that_no_row_could_leave_at_are_not_run() -> None:
    backend = CountingBackend(random_logits())
    classify(backend, np.arange(ROWS), EntropyCriterion(0.0))
    assert backend.layer_rows == [ROWS] * EXITS
    assert backend.exit_rows == [ROWS]  # the teacher


def test_the_criterion_sees_the_whole_history_of_the_running_rows() -> None:
    recorded = random_logits()
    seen: list[np.ndarray] = []

    class Spy:
        def watches(self, exit_layer: int) -> bool:
            return exit_layer != 2  # an exit that is switched off leaves no trace

        def leaves(self, logits: np.ndarray) -> np.ndarray:
            seen.append(logits)
            return np.arange(logits.shape[1]) < 10

    classify(RecordedExits(recorded), np.arange(ROWS), Spy())
    assert np.array_equal(seen[0], recorded[[0]])
    assert np.array_equal(seen[1], recorded[[0, 2], 10:])


@given(st.permutations(range(7)), st.floats(0, 1))
def test_answers_come_in_the_order_of_the_batch(order: list[int], speed: float) -> None:
    backend = RecordedExits(random_logits(rows=7))
    straight = classify(backend, np.arange(7), EntropyCriterion(speed))
    shuffled = classify(backend, np.array(order), EntropyCriterion(speed))

    assert np.array_equal(shuffled.logits, straight.logits[order])
    assert np.array_equal(shuffled.exit_layer, straight.exit_layer[order])


def test_recording_asks_every_exit_about_every_row() -> None:
    recorded = random_logits()
    rows = np.array([3, 1, 4])
    assert np.array_equal(record(RecordedExits(recorded), rows), recorded[:, rows])
