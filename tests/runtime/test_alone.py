"""A text alone in one graph: it is answered as by the loop over segments, to the bit."""

from collections.abc import Sequence

import numpy as np
import pytest

from fastbert.classifier import FastBertClassifier
from fastbert.exits.alone import answer_alone
from fastbert.exits.criteria import Entropy, Measure, ThresholdCriterion, log_softmax
from fastbert.exits.engine import classify, classify_in_steps
from fastbert.exits.label_measures import BinaryEntropy, SetProbability, WorstLabel
from fastbert.exits.measures import Energy, Margin, MaxProbability, Patience, TopEntropy
from fastbert.runtime import onnx_doubts, openvino_chain
from fastbert.runtime.pieces import KEPT_CHAINS, Chain, PieceBackend
from fastbert.text import Text, TokenBatch
from tests.tiny_data import examples

MEASURES = [Entropy(), TopEntropy(2), TopEntropy(9), MaxProbability(), Margin(), Energy()]
MEASURES += [BinaryEntropy(), SetProbability(), WorstLabel()]
TEXTS: list[Text] = [example.text for example in examples(20, seed=9)]
TEXTS += [("a pair", "of texts"), "", "x " * 40]


@pytest.fixture
def backend(exported: FastBertClassifier) -> PieceBackend:
    assert isinstance(exported.backend, PieceBackend)
    exported.backend._chains.clear()
    return exported.backend


def rows_of(exported: FastBertClassifier) -> list[TokenBatch]:
    return [batch for _, batch in exported.batches(exported.encode(TEXTS), 1)]


def spread(
    exported: FastBertClassifier, measure: Measure, watched: Sequence[bool]
) -> ThresholdCriterion:
    """Thresholds at which about a third of the texts leaves each watched exit."""
    recorded = exported.record(TEXTS).recorded
    limits = [
        float(np.quantile(measure.doubt(logits[np.newaxis], 1), 1 / 3)) if asked else 0.0
        for logits, asked in zip(recorded, watched, strict=False)
    ]
    return ThresholdCriterion(measure, tuple(np.clip(limits, 0, 1).tolist()))


def test_every_measure_that_has_a_graph_is_tried() -> None:
    tried = {type(measure) for measure in MEASURES}
    assert tried == set(onnx_doubts.DOUBTS) == set(openvino_chain.DOUBTS)


@pytest.mark.parametrize("measure", MEASURES, ids=str)
@pytest.mark.parametrize("watched", [(True,) * 4, (False, True, False, True)], ids=["all", "some"])
def test_answers_and_exits_are_those_of_the_loop(
    exported: FastBertClassifier,
    backend: PieceBackend,
    measure: Measure,
    watched: tuple[bool, ...],
) -> None:
    criterion = spread(exported, measure, watched)
    left = set()
    classify(backend, rows_of(exported)[0], criterion)  # the first one goes by the loop
    for row in rows_of(exported):
        expected = classify_in_steps(backend, row, criterion)
        answered = answer_alone(backend, row, criterion)
        assert answered is not None
        logits, exit_layer = answered
        np.testing.assert_array_equal(logits, expected.logits)
        assert exit_layer == expected.exit_layer[0]
        left.add(exit_layer)
        np.testing.assert_array_equal(classify(backend, row, criterion).logits, logits)
    assert len(left) >= 3


def run_alone(backend: PieceBackend, row: TokenBatch, bounds: np.ndarray) -> np.ndarray | None:
    return backend.run_alone(row, (1, 2, 3, 4, 5), MaxProbability(), bounds)


def test_layers_after_the_exit_do_not_run(
    exported: FastBertClassifier, backend: PieceBackend
) -> None:
    row = rows_of(exported)[0]
    run_alone(backend, row, np.zeros(4, np.float32))
    for exit_layer in (1, 2, 4):
        bounds = np.zeros(4, np.float32)
        bounds[exit_layer - 1] = 2  # all doubt lies below
        passed = run_alone(backend, row, bounds)
        assert passed is not None
        assert len(passed) == exit_layer
    everywhere = run_alone(backend, row, np.zeros(4, np.float32))
    assert everywhere is not None
    assert len(everywhere) == 5
    assert len(np.unique(everywhere, axis=0)) == 5  # each is of an exit of its own


def test_an_answer_is_not_changed_by_the_next_one(
    exported: FastBertClassifier, backend: PieceBackend
) -> None:
    first, second, *_ = rows_of(exported)
    criterion = ThresholdCriterion(MaxProbability(), (1e-9,) * 4)
    classify(backend, second, criterion)
    logits = classify(backend, first, criterion).logits
    kept = logits.copy()
    classify(backend, second, criterion)
    np.testing.assert_array_equal(logits, kept)


class SecondGuess(Measure):
    def doubt(self, logits: np.ndarray, exit_layer: int) -> np.ndarray:
        return np.asarray(np.exp(np.sort(log_softmax(logits[-1]))[:, -2]))


@pytest.mark.parametrize("measure", [SecondGuess(), Patience()], ids=["own", "looks back"])
def test_other_measures_go_classify_in_steps(
    exported: FastBertClassifier, backend: PieceBackend, measure: Measure
) -> None:
    criterion = ThresholdCriterion(measure, (0.3, 0.3, 0.3, 0.3))
    row = rows_of(exported)[0]
    expected = classify_in_steps(backend, row, criterion)
    for _ in range(2):
        found = classify(backend, row, criterion)
        np.testing.assert_array_equal(found.logits, expected.logits)
    assert not any(backend._chains.values())


def test_a_batch_goes_by_the_loop_and_the_texts_of_one_criterion_share_a_graph(
    exported: FastBertClassifier, backend: PieceBackend
) -> None:
    criterion = ThresholdCriterion(MaxProbability(), (1e-3,) * 4)
    exported.classify(TEXTS[:4], criterion, batch_size=4)
    assert not backend._chains
    for text in TEXTS[:3]:
        exported.classify([text], criterion)
    exported.classify(TEXTS[:1], ThresholdCriterion(MaxProbability(), (1e-2,) * 4))
    assert list(backend._chains) == [((1, 2, 3, 4, 5), MaxProbability())]


def test_a_text_that_comes_once_makes_no_graph(
    exported: FastBertClassifier, backend: PieceBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[int, ...]] = []
    real = backend.make_chain

    def noted(exits: tuple[int, ...], measure: Measure) -> Chain | None:
        made.append(exits)
        return real(exits, measure)

    monkeypatch.setattr(backend, "make_chain", noted)
    goals = [
        ThresholdCriterion(Entropy(), tuple((1e-3 * watched).tolist())) for watched in np.eye(4)
    ]
    for _ in range(2):  # they take turns, and are more than are kept
        for goal in goals:
            exported.classify(TEXTS[:1], goal)
    assert not made
    for _ in range(3):
        exported.classify(TEXTS[:1], goals[2])
    assert made == [(3, 5)]


def test_graphs_that_are_not_in_use_make_place(
    exported: FastBertClassifier, backend: PieceBackend
) -> None:
    for watched in np.eye(4):
        criterion = ThresholdCriterion(Margin(), tuple((1e-3 * watched).tolist()))
        for _ in range(2):
            exported.classify(TEXTS[:1], criterion)
    assert list(backend._chains) == [((3, 5), Margin()), ((4, 5), Margin())]
    assert len(backend._chains) == KEPT_CHAINS
