"""What OpenVINO computes of doubt is near enough to say how far to run."""

from itertools import product

import numpy as np
import pytest
from openvino import CompiledModel, Model, opset13

from fastbert.exits.criteria import Entropy, Measure
from fastbert.exits.label_measures import BinaryEntropy, SetProbability, WorstLabel
from fastbert.exits.measures import Energy, Margin, MaxProbability, TopEntropy
from fastbert.runtime.openvino_chain import DOUBTS
from fastbert.runtime.openvino_core import open_core

CLASSES = 5
MEASURES = [Entropy(), TopEntropy(3), TopEntropy(9), MaxProbability(), Margin(), Energy()]
MEASURES += [BinaryEntropy(), SetProbability(), WorstLabel()]


def compiled(measure: Measure) -> CompiledModel:
    given = opset13.parameter([1, CLASSES], np.float32)
    doubt = DOUBTS[type(measure)](measure, given.output(0), CLASSES)
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    return open_core().compile_model(Model([doubt], [given], "doubt"), "CPU", settings)


@pytest.mark.parametrize("scale", [0.1, 3.0, 200.0])  # exp() of the last overflows
@pytest.mark.parametrize("measure", MEASURES, ids=repr)
def test_a_doubt_is_that_of_the_measure(measure: Measure, scale: float) -> None:
    model = compiled(measure)
    for seed in range(20):
        made = np.random.default_rng(seed).normal(scale=scale, size=(1, CLASSES))
        logits = made.astype(np.float32)
        found = np.asarray(model(logits)[0])
        assert found.shape == ()
        np.testing.assert_allclose(found, measure.doubt(logits[np.newaxis], 1)[0], atol=2e-6)


@pytest.mark.parametrize("measure", MEASURES, ids=repr)
def test_a_doubt_is_a_number_however_sure_the_logits_are(measure: Measure) -> None:
    model = compiled(measure)
    for made in product((-1000, 0, 1000), repeat=CLASSES):
        logits = np.array([made], np.float32)
        expected = measure.doubt(logits[np.newaxis], 1)[0]
        np.testing.assert_allclose(np.asarray(model(logits)[0]), expected, atol=2e-6)
