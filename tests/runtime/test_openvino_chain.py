"""What OpenVINO computes of doubt is near enough to say how far to run."""

import numpy as np
import pytest
from openvino import Model, opset13

from fastbert.exits.criteria import Measure
from fastbert.exits.measures import Energy, Entropy, Margin, MaxProbability, TopEntropy
from fastbert.runtime.openvino_chain import DOUBTS
from fastbert.runtime.openvino_core import open_core

CLASSES = 5
MEASURES = [Entropy(), TopEntropy(3), TopEntropy(9), MaxProbability(), Margin(), Energy()]


@pytest.mark.parametrize("scale", [0.1, 3.0, 200.0])  # exp() of the last overflows
@pytest.mark.parametrize("measure", MEASURES, ids=repr)
def test_a_doubt_is_that_of_the_measure(measure: Measure, scale: float) -> None:
    given = opset13.parameter([1, CLASSES], np.float32)
    doubt = DOUBTS[type(measure)](measure, given.output(0), CLASSES)
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    model = open_core().compile_model(Model([doubt], [given], "doubt"), "CPU", settings)
    for seed in range(20):
        made = np.random.default_rng(seed).normal(scale=scale, size=(1, CLASSES))
        logits = made.astype(np.float32)
        found = np.asarray(model(logits)[0])
        assert found.shape == ()
        np.testing.assert_allclose(found, measure.doubt(logits[np.newaxis], 1)[0], atol=2e-6)
