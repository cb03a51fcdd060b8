"""Measures of doubt say what their papers say, stay within 0 to 1, and never hold a row longer."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import jensenshannon
from scipy.special import expit, logit, softmax
from scipy.stats import entropy

from fastbert.calibration.goal import Goal
from fastbert.calibration.path import exit_layers_at
from fastbert.calibration.solve import Calibration
from fastbert.exits.criteria import Entropy, Measure, ThresholdCriterion, log_softmax
from fastbert.exits.engine import classify
from fastbert.exits.label_measures import BinaryEntropy, SetProbability, WorstLabel
from fastbert.exits.measures import (
    MEASURES,
    NUM_FEATURES,
    Change,
    ConfidentPatience,
    Energy,
    Ensemble,
    LearnedExit,
    Margin,
    MaxProbability,
    Patience,
    Stability,
    SummedConfidence,
    TopEntropy,
    jensen_shannon,
    measure_from_json,
    measure_to_json,
)
from fastbert.exits.recorded import RecordedExits, ReplayState, doubts_of
from fastbert.head_shapes import PaperHead
from fastbert.shape import ModelShape
from fastbert.tasks.single_label import SingleLabel

EXITS, ROWS, CLASSES = 4, 30, 7
STUDENTS = EXITS - 1

WEIGHTS = tuple(
    tuple(row) for row in np.random.default_rng(9).normal(size=(EXITS, NUM_FEATURES + 1)).tolist()
)

finite = st.floats(-1000, 1000, width=32)
thresholds_with_gaps = st.lists(
    st.one_of(st.just(0.0), st.floats(0, 1, width=32)), min_size=STUDENTS, max_size=STUDENTS
)


def measure_named(name: str) -> Measure:
    return LearnedExit(WEIGHTS) if name == "learned" else MEASURES[name]()


def random_logits(seed: int = 0, rows: int = ROWS, scale: float = 2.0) -> np.ndarray:
    # Rows differ in how sure and how steady they are, so that every measure has something to tell.
    random = np.random.default_rng(seed)
    steady = random.normal(size=(1, rows, CLASSES))
    sure = random.uniform(0.1, 1, size=(1, rows, 1)) * np.linspace(0.5, 2, EXITS)[:, None, None]
    noise = 0.6 * random.normal(size=(EXITS, rows, CLASSES))
    return np.asarray(scale * sure * (steady + noise))


# What each measure is, for the answers of one row so far, written down once more with SciPy.


def entropy_by_hand(z: np.ndarray) -> float:
    return float(entropy(softmax(z), base=len(z)))


def top_entropy_by_hand(seen: np.ndarray, top: int) -> float:
    best = sorted(softmax(seen[-1]))[-top:]
    return float(entropy(best, base=len(best)))  # SciPy makes them add up to 1


def max_probability_by_hand(seen: np.ndarray) -> float:
    p = softmax(seen[-1])
    return float((1 - p.max()) * len(p) / (len(p) - 1))


def margin_by_hand(seen: np.ndarray) -> float:
    *_, second, first = sorted(softmax(seen[-1]))
    return float(1 - (first - second))


def energy_by_hand(seen: np.ndarray) -> float:
    classes = len(seen[-1])
    return float(classes / (classes + np.exp(seen[-1]).sum()))


def pabee_counter(seen: np.ndarray) -> int:
    """PABEE's `patient_counter`: up by one on the same answer as before, else back to 0."""
    counter, before = 0, None
    for answer in seen.argmax(axis=-1).tolist():
        counter = counter + 1 if answer == before else 0
        before = answer
    return counter


def confident_patience_by_hand(seen: np.ndarray, patience: int) -> float:
    if len(seen) < patience:
        return 1.0
    return max(entropy_by_hand(z) for z in seen[-patience:])


def divergence_by_hand(one: np.ndarray, other: np.ndarray) -> float:
    return float(jensenshannon(softmax(one), softmax(other), base=2) ** 2)


def stability_by_hand(seen: np.ndarray, patience: int) -> float:
    steps = [divergence_by_hand(a, b) for a, b in pairwise(seen)]
    return max(steps[-patience:]) if len(steps) >= patience else 1.0


def ensemble_by_hand(seen: np.ndarray) -> float:
    product = np.prod([softmax(z) for z in seen], axis=0) ** (1 / len(seen))
    if product.argmax() != seen[-1].argmax():
        return 1.0
    return float(entropy(product, base=len(product)))


def summed_confidence_by_hand(seen: np.ndarray) -> float:
    total, before = 0.0, None
    for p in map(softmax, seen):
        total = total + p.max() if p.argmax() == before else p.max()
        before = p.argmax()
    return 1 / (1 + total)


def learned_by_hand(seen: np.ndarray) -> float:
    features = [
        entropy_by_hand(seen[-1]),
        margin_by_hand(seen),
        logit(max_probability_by_hand(seen)),
        energy_by_hand(seen),
        (pabee_counter(seen) + 1) / len(seen),
        divergence_by_hand(seen[-1], seen[-2]) if len(seen) > 1 else 0.0,
    ]
    *weights, intercept = WEIGHTS[len(seen) - 1]
    return float(expit(np.dot(features, weights) + intercept))


def binary_entropy_by_hand(seen: np.ndarray) -> float:
    return float(np.mean([entropy([expit(z), expit(-z)], base=2) for z in seen[-1]]))


def set_probability_by_hand(seen: np.ndarray) -> float:
    yes = expit(seen[-1])
    sets = list(product((False, True), repeat=len(yes)))
    likeliest = max(np.where(held, yes, 1 - yes).prod() for held in sets)
    return float((1 - likeliest) * len(sets) / (len(sets) - 1))


def worst_label_by_hand(seen: np.ndarray) -> float:
    return max(2 * float(min(p, 1 - p)) for p in expit(seen[-1]))


def change_by_hand(seen: np.ndarray, scale: float) -> float:
    if len(seen) == 1:
        return 1.0
    step = max(abs(seen[-1] - seen[-2]))
    return float(1 - scale / (scale + step))


BY_HAND: list[tuple[Measure, Callable[[np.ndarray], float]]] = [
    (Entropy(), lambda seen: entropy_by_hand(seen[-1])),
    (TopEntropy(), lambda seen: top_entropy_by_hand(seen, 5)),
    (TopEntropy(top=3), lambda seen: top_entropy_by_hand(seen, 3)),
    (MaxProbability(), max_probability_by_hand),
    (Margin(), margin_by_hand),
    (Energy(), energy_by_hand),
    (Patience(), lambda seen: 1 / (1 + pabee_counter(seen))),
    (ConfidentPatience(), lambda seen: confident_patience_by_hand(seen, 2)),
    (ConfidentPatience(patience=3), lambda seen: confident_patience_by_hand(seen, 3)),
    (Stability(), lambda seen: stability_by_hand(seen, 1)),
    (Stability(patience=2), lambda seen: stability_by_hand(seen, 2)),
    (Ensemble(), ensemble_by_hand),
    (SummedConfidence(), summed_confidence_by_hand),
    (LearnedExit(WEIGHTS), learned_by_hand),
    (BinaryEntropy(), binary_entropy_by_hand),
    (SetProbability(), set_probability_by_hand),
    (WorstLabel(), worst_label_by_hand),
    (Change(), lambda seen: change_by_hand(seen, 1.0)),
    (Change(scale=0.2), lambda seen: change_by_hand(seen, 0.2)),
]


OF_LABELS = [BinaryEntropy(), SetProbability(), WorstLabel()]  # each is a yes or no of its own


def short_name(value: object) -> str:
    return str(value)[:30] if isinstance(value, Measure) else "by_hand"


@pytest.mark.parametrize(("measure", "by_hand"), BY_HAND, ids=short_name)
@pytest.mark.parametrize("exit_layer", range(1, EXITS + 1))
def test_doubt_is_the_papers_formula(
    measure: Measure, by_hand: Callable[[np.ndarray], float], exit_layer: int
) -> None:
    seen = random_logits()[:exit_layer]
    expected = [by_hand(seen[:, row]) for row in range(ROWS)]
    assert measure.doubt(seen, exit_layer) == pytest.approx(expected, abs=1e-9)


def test_every_measure_has_its_formula_in_these_tests() -> None:
    assert {type(measure) for measure, _ in BY_HAND} == set(MEASURES.values())


@pytest.mark.parametrize("measure", [measure for measure, _ in BY_HAND], ids=short_name)
@given(data=st.data())
@settings(max_examples=60)
def test_doubt_lies_between_0_and_1_whatever_the_logits(
    measure: Measure, data: st.DataObject
) -> None:
    # A doubt of 1.0000001 (float32, equal logits of 7 classes) made a threshold no criterion takes.
    classes = data.draw(st.integers(2, 8))
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    logits = data.draw(arrays(dtype, (EXITS, 5, classes), elements=finite))
    for exit_layer in range(1, EXITS + 1):
        doubt = measure.doubt(logits[:exit_layer], exit_layer)
        assert ((doubt >= 0) & (doubt <= 1)).all()  # False for NaN as well


@pytest.mark.parametrize("measure", [measure for measure, _ in BY_HAND], ids=short_name)
@pytest.mark.parametrize("scale", [0.0, 1e-4, 1e-3, 1e-2, 1000.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rounding_takes_no_doubt_out_of_range(
    measure: Measure, scale: float, dtype: type[np.floating]
) -> None:
    # Students that are all but undecided: rounding errors of both signs, thousands of them.
    for classes in (2, 3, 5, 7):
        logits = np.random.default_rng(classes).normal(size=(EXITS, 3000, classes)) * scale
        doubt = measure.doubt(logits.astype(dtype), EXITS)
        assert doubt.min() >= 0
        assert doubt.max() <= 1


@pytest.mark.parametrize(
    "measure",
    [Entropy(), TopEntropy(), MaxProbability(), Margin(), Ensemble(), *OF_LABELS],
    ids=short_name,
)
def test_doubt_is_1_where_nothing_is_known_and_0_where_all_is(measure: Measure) -> None:
    equal = np.zeros((2, 3, CLASSES))
    assert measure.doubt(equal, 2) == pytest.approx(np.ones(3))
    certain = np.full((2, 3, CLASSES), -1000.0)
    certain[..., 4] = 1000.0
    assert measure.doubt(certain, 2) == pytest.approx(np.zeros(3), abs=1e-12)


@given(arrays(np.float64, (3, 5, 4), elements=finite))
def test_top_entropy_of_few_classes_is_the_entropy(logits: np.ndarray) -> None:
    for top in (4, 5, 9):
        assert np.array_equal(TopEntropy(top).doubt(logits, 3), Entropy().doubt(logits, 3))


def test_top_entropy_forgets_the_tail() -> None:
    latest = np.array([[5.0, 4.0, 1.0, 0.0, -1.0]])
    other_tail = np.array([[5.0, 4.0, -9.0, 0.9, 0.3]])
    top = TopEntropy(2)
    assert np.array_equal(top.doubt(latest[None], 1), top.doubt(other_tail[None], 1))


@pytest.mark.parametrize("measure", [MaxProbability(), Margin()], ids=short_name)
def test_with_two_classes_rows_stand_in_the_order_of_entropy(measure: Measure) -> None:
    logits = np.random.default_rng(3).normal(size=(1, 200, 2)) * 2
    assert (
        measure.doubt(logits, 1).argsort().tolist() == Entropy().doubt(logits, 1).argsort().tolist()
    )


def test_with_more_classes_the_measures_differ() -> None:
    logits = random_logits(rows=200)
    measures = (Entropy(), MaxProbability(), Margin(), TopEntropy(), Energy())
    assert len(orders_of(measures, logits)) == len(measures)


def test_with_several_labels_their_measures_differ() -> None:
    assert len(orders_of(OF_LABELS, random_logits(rows=200))) == len(OF_LABELS)


def orders_of(measures: Sequence[Measure], logits: np.ndarray) -> set[tuple[int, ...]]:
    return {tuple(measure.doubt(logits, EXITS).argsort()) for measure in measures}


@pytest.mark.parametrize("name", MEASURES)
def test_only_a_measure_that_looks_back_reads_earlier_exits(name: str) -> None:
    measure = measure_named(name)
    one = random_logits(seed=1)
    other = np.concatenate([random_logits(seed=2)[:-1], one[-1:]])  # the same latest answers
    same = np.array_equal(measure.doubt(one, EXITS), measure.doubt(other, EXITS))
    assert same != measure.looks_back


@pytest.mark.parametrize("patience", [1, 2, 3])
def test_patience_lets_a_row_go_when_pabees_counter_does(patience: int) -> None:
    # "A threshold above 1/(t + 1) wants t + 1 equal answers": PABEE's counter has reached t.
    logits = np.random.default_rng(4).normal(size=(5, 60, 2))
    threshold = float(np.nextafter(1 / (patience + 1), 1))
    result = RecordedExits(logits).replay(ThresholdCriterion(Patience(), (threshold,) * 4))

    expected = []
    for row in range(60):
        counters = [pabee_counter(logits[:layer, row]) for layer in range(1, 5)]
        expected.append(next((k + 1 for k, n in enumerate(counters) if n == patience), 5))
    assert result.exit_layer.tolist() == expected
    assert len(set(expected)) > 1


def test_confident_patience_lets_a_row_go_when_pcee_berts_counter_does() -> None:
    # PCEE-BERT counts the confident exits in a row and stops when there are `patience` of them.
    logits, threshold, patience = random_logits(rows=60), 0.8, 2
    criterion = ThresholdCriterion(ConfidentPatience(patience), (threshold,) * STUDENTS)
    expected = []
    for row in range(60):
        counter, left = 0, EXITS
        for layer in range(1, EXITS):
            counter = counter + 1 if entropy_by_hand(logits[layer - 1, row]) < threshold else 0
            if counter == patience:
                left = layer
                break
        expected.append(left)
    assert RecordedExits(logits).replay(criterion).exit_layer.tolist() == expected
    assert len(set(expected)) > 2


def test_the_divergence_is_symmetric_and_one_bit_for_answers_that_have_nothing_in_common() -> None:
    one, other = random_logits(seed=1)[0], random_logits(seed=2)[0]
    assert jensen_shannon(one, other) == pytest.approx(jensen_shannon(other, one), abs=1e-12)
    assert jensen_shannon(one, one) == pytest.approx(np.zeros(ROWS), abs=1e-12)
    apart = np.array([[1000.0, 0.0, 0.0]])
    assert jensen_shannon(apart, apart[:, ::-1]) == pytest.approx([1.0])


@pytest.mark.parametrize("wrong", [(), ((0.5,) * NUM_FEATURES,), (WEIGHTS[0], WEIGHTS[1][1:])])
def test_weights_of_another_shape_are_refused(wrong: tuple[tuple[float, ...], ...]) -> None:
    with pytest.raises(ValueError, match=r"6 and an intercept"):
        LearnedExit(wrong)


# Names and settings.


@pytest.mark.parametrize("measure", [measure for measure, _ in BY_HAND], ids=short_name)
def test_a_measure_survives_json(measure: Measure) -> None:
    back = measure_from_json(json.loads(json.dumps(measure_to_json(measure))))
    assert back == measure
    assert type(back) is type(measure)


def test_names_are_those_of_the_command_line() -> None:
    assert measure_to_json(TopEntropy(3)) == {"name": "top-entropy", "top": 3}
    assert measure_to_json(Entropy()) == {"name": "entropy"}
    assert measure_from_json({"name": "stability"}) == Stability(patience=1)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({}, "unknown measure None; known are entropy, "),
        ({"name": "entrpy"}, "unknown measure 'entrpy'"),
        ({"name": "SecondGuess"}, "unknown measure"),
        ({"name": "entropy", "top": 3}, "measure entropy"),
        ({"name": "top-entropy", "Top": 3}, "measure top-entropy"),
        ({"name": "top-entropy", "top": 1}, "top must be a whole number of at least 2, got 1"),
        ({"name": "top-entropy", "top": "5"}, "measure top-entropy"),
        ({"name": "confident-patience", "patience": 0}, "at least 1, got 0"),
        ({"name": "stability", "patience": -1}, "at least 1, got -1"),
        ({"name": "change", "scale": 0.0}, "positive and finite, got 0"),
        ({"name": "change", "scale": float("nan")}, "positive and finite, got nan"),
        ({"name": "change", "scale": float("inf")}, "positive and finite, got inf"),
        ({"name": "top-entropy", "top": 2.5}, "whole number|top-entropy"),
        ({"name": ["entropy"]}, "unknown measure"),
        ({"name": "learned", "weights": [[float("nan")] * 7]}, "finite"),
        ({"name": "learned"}, "measure learned"),
        ({"name": "learned", "weights": 5}, "measure learned"),
        ({"name": "learned", "weights": []}, "intercept for each student"),
        ({"name": "learned", "weights": [[0.1, 0.2]]}, r"got \[2\]"),
    ],
)
def test_a_record_that_describes_no_measure_is_refused(
    entries: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        measure_from_json(entries)


# Under thresholds.


@pytest.mark.parametrize("name", MEASURES)
@given(seed=st.integers(0, 10_000), low=thresholds_with_gaps, rise=thresholds_with_gaps)
@settings(max_examples=40, deadline=None)
def test_raising_thresholds_never_lets_a_row_leave_later(
    name: str, seed: int, low: list[float], rise: list[float]
) -> None:
    recorded = RecordedExits(random_logits(seed, rows=20).astype(np.float32))
    high = [max(pair) for pair in zip(low, rise, strict=True)]
    slow = recorded.replay(ThresholdCriterion(measure_named(name), tuple(low)))
    fast = recorded.replay(ThresholdCriterion(measure_named(name), tuple(high)))
    assert (fast.exit_layer <= slow.exit_layer).all()


@pytest.mark.parametrize("name", MEASURES)
@given(
    seed=st.integers(0, 10_000),
    thresholds=thresholds_with_gaps,
    dtype=st.sampled_from([np.float32, np.float64]),
)
@settings(max_examples=40, deadline=None)
def test_the_loop_lets_rows_go_where_calibration_says(
    name: str, seed: int, thresholds: list[float], dtype: type[np.floating]
) -> None:
    measure = measure_named(name)
    recorded = RecordedExits(random_logits(seed, rows=20).astype(dtype))
    expected = exit_layers_at(doubts_of(measure, recorded), np.array(thresholds))
    result = recorded.replay(ThresholdCriterion(measure, tuple(thresholds)))
    assert result.exit_layer.tolist() == expected.tolist()


@pytest.mark.parametrize("name", MEASURES)
def test_random_thresholds_spread_the_rows_over_the_exits(name: str) -> None:
    # So that the two tests above speak of more than "all leave first" and "all stay".
    measure, recorded = measure_named(name), RecordedExits(random_logits(rows=200))
    middle = tuple(np.quantile(doubts_of(measure, recorded), 0.4, axis=1).tolist())
    criterion = ThresholdCriterion(measure, middle)
    assert len(set(recorded.replay(criterion).exit_layer.tolist())) > 1


@dataclass(frozen=True)
class AskedBackend(RecordedExits):
    """Notes which exits are asked."""

    asked: list[int] = field(default_factory=list)

    def advance(self, state: ReplayState, exit_layer: int) -> tuple[ReplayState, np.ndarray]:
        self.asked.append(exit_layer)
        return super().advance(state, exit_layer)


@pytest.mark.parametrize("name", MEASURES)
def test_thresholds_of_0_run_every_layer_and_ask_no_student(name: str) -> None:
    backend = AskedBackend(random_logits())
    criterion = ThresholdCriterion(measure_named(name), (0.0,) * STUDENTS)
    result = classify(backend, np.arange(ROWS), criterion)
    assert result.exit_layer.tolist() == [EXITS] * ROWS
    assert np.array_equal(result.logits, backend.recorded[-1])
    assert backend.asked == [EXITS]


@pytest.mark.parametrize("name", MEASURES)
def test_a_threshold_of_0_asks_the_student_only_if_a_later_doubt_looks_back_on_it(
    name: str,
) -> None:
    backend, measure = AskedBackend(random_logits()), measure_named(name)
    classify(backend, np.arange(ROWS), ThresholdCriterion(measure, (0.0, 1e-6, 0.0)))
    assert backend.asked == ([1, 2, EXITS] if measure.looks_back else [2, EXITS])


class SecondGuess(Measure):
    def doubt(self, logits: np.ndarray, exit_layer: int) -> np.ndarray:
        return np.asarray(np.exp(np.sort(log_softmax(logits[-1]))[:, -2]))


def test_a_measure_of_ones_own_works_in_the_loop_and_in_calibration() -> None:
    recorded = RecordedExits(random_logits(rows=60))
    shape = ModelShape(16, 32, EXITS, CLASSES, (PaperHead(width=4),) * (EXITS - 1))
    task = SingleLabel(tuple("abcdefgh"[:CLASSES]))
    calibration = Calibration(recorded, None, np.full(60, 11), shape, task, measure=SecondGuess())
    point = calibration.solve(Goal(max_mean_layers=2.5))

    second = np.sort([[softmax(z) for z in exit_] for exit_ in recorded.recorded[:-1]])[..., -2]
    leaving = np.vstack([second < np.array(point.thresholds)[:, None], np.full(60, True)])
    expected = leaving.argmax(axis=0) + 1
    assert recorded.replay(point.criterion).exit_layer.tolist() == expected.tolist()
    assert point.mean_exit_layer == pytest.approx(expected.mean())
    assert 1 < point.mean_exit_layer <= 2.5
    assert measure_to_json(SecondGuess()) == {"name": "SecondGuess"}


def test_measures_are_values() -> None:
    assert replace(TopEntropy(), top=3) == TopEntropy(3) != TopEntropy(4)
    assert len({Entropy(), Entropy(), Margin()}) == 2
