"""Measures of several labels: what they say of sets, of one label among others, of yes and no."""

from itertools import product

import numpy as np
import pytest
from scipy.special import expit

from fastbert.exits.criteria import Measure
from fastbert.exits.label_measures import BinaryEntropy, SetProbability, WorstLabel

ROWS, CLASSES = 30, 7
MEASURES = [BinaryEntropy(), SetProbability(), WorstLabel()]


@pytest.mark.parametrize("labels", [2, 3, 6])
def test_what_any_set_but_the_likeliest_has_is_counted_over_all_sets(labels: int) -> None:
    logits = np.random.default_rng(labels).normal(size=(1, ROWS, labels)) * 2
    yes = expit(logits[0])
    sets = np.array(list(product((False, True), repeat=labels)))
    likeliest = np.where(sets[:, None], yes, 1 - yes).prod(axis=-1).max(axis=0)
    expected = (1 - likeliest) * len(sets) / (len(sets) - 1)
    assert SetProbability().doubt(logits, 1) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("measure", "doubt"),
    [
        (BinaryEntropy(), 1 / CLASSES),
        (SetProbability(), 0.5 * 2**CLASSES / (2**CLASSES - 1)),  # two sets are equally likely
        (WorstLabel(), 1.0),
    ],
    ids=repr,
)
def test_one_undecided_label_among_sure_ones_counts_as_the_measure_says(
    measure: Measure, doubt: float
) -> None:
    logits = np.array([1000.0, -1000.0] * CLASSES)[:CLASSES] * (1 - np.eye(CLASSES))
    found = measure.doubt(logits[None], 1)  # a row for each place
    assert found == pytest.approx(np.full(CLASSES, doubt), abs=1e-12)


@pytest.mark.parametrize("measure", MEASURES, ids=repr)
def test_a_yes_is_as_sure_as_a_no(measure: Measure) -> None:
    logits = np.random.default_rng(3).normal(size=(1, ROWS, CLASSES)) * 2
    turned = logits * np.where(np.arange(CLASSES) % 2, 1, -1)
    assert measure.doubt(turned, 1) == pytest.approx(measure.doubt(logits, 1), abs=1e-12)
