"""Doubt in ONNX operators is doubt in NumPy, and every task has its probabilities."""

from itertools import product

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from fastbert.exits.criteria import Entropy, Measure
from fastbert.exits.label_measures import BinaryEntropy, SetProbability, WorstLabel
from fastbert.exits.measures import Energy, Margin, MaxProbability, TopEntropy
from fastbert.runtime.onnx_doubts import DOUBTS, PROBABILITIES
from fastbert.runtime.onnx_graph import Graph, Weights, tensor
from fastbert.tasks.known import TASKS

ROWS, CLASSES = 40, 5
MEASURES = [Entropy(), TopEntropy(3), TopEntropy(9), MaxProbability(), Margin(), Energy()]
MEASURES += [BinaryEntropy(), SetProbability(), WorstLabel()]


def computed(graph: Graph, output: str, logits: np.ndarray) -> np.ndarray:
    """Return what onnxruntime makes of logits."""
    given = [tensor("logits", np.float32, "rows", logits.shape[-1])]
    gives = [helper.make_empty_tensor_value_info(output)]
    whole = helper.make_graph(graph.nodes, "doubt", given, gives, graph.weights.tensors)
    model = helper.make_model(whole, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    typed = onnx.shape_inference.infer_shapes(model)
    session = onnxruntime.InferenceSession(typed.SerializeToString())
    return np.asarray(session.run(None, {"logits": logits})[0])


def logits(scale: float) -> np.ndarray:
    made = np.random.default_rng(1).normal(scale=scale, size=(ROWS, CLASSES))
    return made.astype(np.float32)


@pytest.mark.parametrize("scale", [0.1, 3.0, 200.0])  # exp() of the last overflows
@pytest.mark.parametrize("measure", MEASURES, ids=repr)
def test_a_doubt_is_that_of_the_measure(measure: Measure, scale: float) -> None:
    graph, made = Graph("", Weights()), logits(scale)
    output = DOUBTS[type(measure)](measure, graph, "logits", CLASSES)
    np.testing.assert_allclose(
        computed(graph, output, made), measure.doubt(made[None], 1), atol=1e-6
    )


@pytest.mark.parametrize("measure", MEASURES, ids=repr)
def test_a_doubt_is_a_number_however_sure_the_logits_are(measure: Measure) -> None:
    made = np.array(list(product((-1000, 0, 1000), repeat=CLASSES)), np.float32)
    graph = Graph("", Weights())
    output = DOUBTS[type(measure)](measure, graph, "logits", CLASSES)
    np.testing.assert_allclose(
        computed(graph, output, made), measure.doubt(made[None], 1), atol=1e-6
    )


@pytest.mark.parametrize("name", TASKS)
def test_every_task_has_its_probabilities(name: str) -> None:
    task = TASKS[name](tuple("abcde"))
    graph, made = Graph("", Weights()), np.concatenate([logits(3.0), logits(500.0)])
    output = PROBABILITIES[type(task)](graph, "logits", "probabilities")
    assert output == "probabilities"
    np.testing.assert_allclose(computed(graph, output, made), task.probabilities(made), atol=1e-6)
