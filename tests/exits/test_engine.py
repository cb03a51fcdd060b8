"""The adaptive loop: who leaves where, what is computed, and in which order answers come back."""

from dataclasses import dataclass, field
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastbert.exits.criteria import (
    Entropy,
    EntropyCriterion,
    ExitCriterion,
    Measure,
    Seen,
    ThresholdCriterion,
    uncertainty,
)
from fastbert.exits.engine import RunningRows, begin, classify, in_order, merge, record, step
from fastbert.exits.measures import MaxProbability, Patience
from fastbert.exits.recorded import RecordedExits, ReplayState
from tests.sharing import MIXED_MEASURES, answers_alone, answers_together

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
    handed: list[Seen] = []

    class Spy:
        def watches(self, exit_layer: int) -> bool:
            return exit_layer != 2  # an exit that is switched off leaves no trace

        def leaves(self, seen: Seen) -> np.ndarray:
            handed.append(seen)
            return np.arange(len(seen.latest)) < 10

    classify(RecordedExits(recorded), np.arange(ROWS), Spy())
    assert [seen.layers for seen in handed] == [(1,), (1, 3)]
    assert np.array_equal(handed[0].stacked, recorded[[0]])
    assert np.array_equal(handed[1].stacked, recorded[[0, 2], 10:])


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


# Step by step, and many requests at once.


def test_classify_is_step_until_nobody_runs() -> None:
    backend, criterion = CountingBackend(random_logits()), EntropyCriterion(0.5)
    running: RunningRows[ReplayState] | None = begin(backend, np.arange(ROWS), criterion)
    answers, layers = [], []
    while running is not None:
        running, answered = step(backend, running)
        answers += answered
        layers.append(EXITS if running is None else running.exit_layer)
        assert all(answer.exit_layer == layers[-1] for answer in answered)
    assert layers == [1, 2, 3, 4]
    result = in_order(answers)
    whole = classify(backend, np.arange(ROWS), criterion)
    assert np.array_equal(result.logits, whole.logits)
    assert np.array_equal(result.exit_layer, whole.exit_layer)


def test_no_rows_are_answered_nothing() -> None:
    for speed in (0.0, 0.5):
        result = classify(RecordedExits(random_logits()), np.arange(0), EntropyCriterion(speed))
        assert result.logits.shape == (0, CLASSES)
        assert result.exit_layer.tolist() == []


MANY_EXITS = 6
MANY = (
    np.random.default_rng(8).normal(size=(MANY_EXITS, 30, CLASSES))
    * (np.linspace(0.5, 5, MANY_EXITS)[:, None, None])
)


@dataclass(frozen=True)
class LooksBackOnSome:
    """A criterion of one's own that looks back on the exits that it names, and on no other."""

    layers: tuple[int, ...]

    def watches(self, exit_layer: int) -> bool:
        return exit_layer in self.layers

    def leaves(self, seen: Seen) -> np.ndarray:
        return Patience().doubt(seen.stacked, seen.exit_layer) < 0.6


threshold = st.just(0.0) | st.floats(0, 1)
some_rows = st.lists(st.integers(0, 29), min_size=1, max_size=9)
some_request = st.tuples(
    some_rows,
    st.sampled_from([None, "some", Entropy(), *MIXED_MEASURES]),
    st.lists(threshold, min_size=MANY_EXITS - 1, max_size=MANY_EXITS - 1),
)


def criterion(rule: Measure | str | None, thresholds: list[float]) -> ExitCriterion:
    if rule is None:
        return EntropyCriterion(thresholds[0])
    if isinstance(rule, str):
        open_exits = [layer for layer, value in enumerate(thresholds, start=1) if value > 0]
        return LooksBackOnSome(tuple(open_exits))
    return ThresholdCriterion(rule, tuple(thresholds))


@settings(max_examples=300)
@given(st.lists(some_request, min_size=1, max_size=6), st.randoms())
def test_requests_that_share_steps_are_answered_exactly_as_each_alone(
    drawn: list[tuple[list[int], Measure | str | None, list[float]]], random: Random
) -> None:
    backend = RecordedExits(MANY)
    requests = [(np.array(rows), criterion(rule, values)) for rows, rule, values in drawn]
    together = answers_together(backend, requests, random)
    for ours, alone in zip(together, answers_alone(backend, requests), strict=True):
        assert np.array_equal(ours.logits, alone.logits)
        assert np.array_equal(ours.exit_layer, alone.exit_layer)


def test_what_one_request_watches_another_does_not_see() -> None:
    # Patience after layer 3: with the answers of layers 1 and 2, many have agreed; alone, nobody.
    logits = np.broadcast_to(np.eye(CLASSES)[0], (EXITS, ROWS, CLASSES))
    backend = RecordedExits(logits)
    handed: list[Seen] = []

    class OnlyTheThird:
        def watches(self, exit_layer: int) -> bool:
            return exit_layer == 3

        def leaves(self, seen: Seen) -> np.ndarray:
            handed.append(seen)
            return Patience().doubt(seen.stacked, seen.exit_layer) < 0.6

    others = begin(backend, np.arange(7), ThresholdCriterion(Patience(), (0.0, 0.0, 1e-6)))
    third = begin(backend, np.arange(4), OnlyTheThird())
    running: RunningRows[ReplayState] | None = merge(backend, [third, others])
    exits = []
    while running is not None:
        running, answered = step(backend, running)
        exits.append([(a.exit_layer, len(a.rows)) for a in answered])
    assert exits == [[], [], [], [(4, 4), (4, 7)]]
    assert [seen.layers for seen in handed] == [(3,)]


def test_a_step_runs_to_the_nearest_exit_that_any_request_watches() -> None:
    backend = CountingBackend(random_logits())
    late = begin(backend, np.arange(5), ThresholdCriterion(MaxProbability(), (0.0, 0.0, 1e-9)))
    early = begin(backend, np.arange(3), ThresholdCriterion(MaxProbability(), (0.0, 1.0, 0.0)))
    running, answered = step(backend, merge(backend, [late, early]))

    assert backend.layer_rows == [8, 8]
    assert [(len(answer.rows), answer.exit_layer) for answer in answered] == [(0, 2), (3, 2)]
    assert running is not None  # one request is empty, the other goes on
    assert [(part.request, len(part.rows)) for part in running.parts] == [
        (late.parts[0].request, 5)
    ]
    step(backend, running)
    assert backend.layer_rows == [8, 8, 5]


def test_rows_at_different_layers_are_not_merged() -> None:
    backend = RecordedExits(random_logits())
    first = begin(backend, np.arange(5), EntropyCriterion(1e-9))
    ahead, _ = step(backend, first)
    assert ahead is not None
    with pytest.raises(ValueError, match=r"the same number of layers to be merged, got \[0, 1\]"):
        merge(backend, [first, ahead])


def test_a_step_leaves_the_rows_it_was_given_as_they_were() -> None:
    backend = RecordedExits(random_logits())
    running = begin(backend, np.arange(ROWS), EntropyCriterion(0.95))
    once, again = step(backend, running), step(backend, running)
    assert running.parts[0].seen.layers == ()
    assert once[1][0].rows.tolist() == again[1][0].rows.tolist() != []
