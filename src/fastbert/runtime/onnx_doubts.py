"""What exits answer and how doubtful it is, in ONNX operators.

Each measure is as in `fastbert.exits.measures`, operator for operator where there is one; what a
task makes of logits is as in `fastbert.tasks`.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fastbert.exits.criteria import Entropy, Measure
from fastbert.exits.label_measures import BinaryEntropy, SetProbability, WorstLabel
from fastbert.exits.measures import Energy, Margin, MaxProbability, TopEntropy
from fastbert.runtime.onnx_graph import Graph
from fastbert.tasks.multi_label import MultiLabel
from fastbert.tasks.single_label import SingleLabel
from fastbert.tasks.task import Task


def _uncertainty(graph: "Graph", logits: str, classes: int) -> str:
    shifted, weights, total = _softmax_parts(graph, logits)
    products = graph.add("Mul", weights, shifted)
    weighted = graph.add("ReduceSum", products, graph.constant([-1], np.int64), keepdims=0)
    entropy = graph.add("Sub", graph.add("Log", total), graph.add("Div", weighted, total))
    scaled = graph.add("Div", entropy, graph.constant(math.log(classes)))
    return graph.add("Clip", scaled, graph.constant(0.0), graph.constant(1.0))


def _entropy(measure: Entropy, graph: "Graph", logits: str, classes: int) -> str:
    return _uncertainty(graph, logits, classes)


def _top_entropy(measure: TopEntropy, graph: "Graph", logits: str, classes: int) -> str:
    if classes <= measure.top:
        return _uncertainty(graph, logits, classes)
    return _uncertainty(graph, _highest(graph, logits, measure.top), measure.top)


def _max_probability(measure: MaxProbability, graph: "Graph", logits: str, classes: int) -> str:
    probabilities = graph.add("Softmax", logits, axis=-1)
    last = graph.constant([-1], np.int64)
    largest = graph.add("ReduceMax", probabilities, last, keepdims=0)
    scale = graph.constant(classes / (classes - 1))
    return graph.add("Sub", scale, graph.add("Mul", largest, scale))


def _margin(measure: Margin, graph: "Graph", logits: str, classes: int) -> str:
    log_p = graph.add("LogSoftmax", logits, axis=-1)
    best = graph.add("Exp", _highest(graph, log_p, 2))
    first, second = (
        graph.add("Gather", best, graph.constant(place, np.int64), axis=-1) for place in (0, 1)
    )
    return graph.add("Sub", graph.constant(1.0), graph.add("Sub", first, second))


def _energy(measure: Energy, graph: "Graph", logits: str, classes: int) -> str:
    last = graph.constant([-1], np.int64)
    summed = graph.add("ReduceLogSumExp", logits, last, keepdims=0)
    free = graph.add("Sub", summed, graph.constant(math.log(classes)))
    return graph.add("Exp", graph.add("Neg", graph.add("Softplus", free)))


def _binary_entropy(measure: BinaryEntropy, graph: "Graph", logits: str, labels: int) -> str:
    # Of -|z|, log(1 + exp(z)) and -z·p are both positive: for large logits nothing cancels. And p
    # is not ONNX Runtime's `Sigmoid`: what it rounds would count z times, 1e-6 in all.
    below = graph.add("Neg", graph.add("Abs", logits))
    softplus = graph.add("Softplus", below)
    less_likely = graph.add("Exp", graph.add("Sub", below, softplus))
    nats = graph.add("Sub", softplus, graph.add("Mul", below, less_likely))
    mean = graph.add("ReduceMean", nats, graph.constant([-1], np.int64), keepdims=0)
    scaled = graph.add("Div", mean, graph.constant(math.log(2)))
    return graph.add("Min", scaled, graph.constant(1.0))


def _set_probability(measure: SetProbability, graph: "Graph", logits: str, labels: int) -> str:
    surprises = graph.add("Softplus", graph.add("Neg", graph.add("Abs", logits)))
    summed = graph.add("ReduceSum", surprises, graph.constant([-1], np.int64), keepdims=0)
    likeliest = graph.add("Exp", graph.add("Neg", summed))
    scale = graph.constant(-1 / math.expm1(-labels * math.log(2)))
    rest = graph.add("Sub", scale, graph.add("Mul", likeliest, scale))
    return graph.add("Min", rest, graph.constant(1.0))


def _worst_label(measure: WorstLabel, graph: "Graph", logits: str, labels: int) -> str:
    last = graph.constant([-1], np.int64)
    nearest = graph.add("ReduceMin", graph.add("Abs", logits), last, keepdims=0)
    less_likely = graph.add("Exp", graph.add("Neg", graph.add("Softplus", nearest)))
    return graph.add("Mul", less_likely, graph.constant(2.0))


def _softmax_parts(graph: "Graph", logits: str) -> tuple[str, str, str]:
    """Write logits shifted so that exp() cannot overflow, exp() of them, and the sum of that."""
    last = graph.constant([-1], np.int64)
    shifted = graph.add("Sub", logits, graph.add("ReduceMax", logits, last))
    weights = graph.add("Exp", shifted)
    return shifted, weights, graph.add("ReduceSum", weights, last, keepdims=0)


def _highest(graph: "Graph", values: str, count: int) -> str:
    return graph.add("TopK", values, graph.constant([count], np.int64), outputs=2)


DOUBTS: Mapping[type[Measure], Callable[[Any, "Graph", str, int], str]] = {
    Entropy: _entropy,
    TopEntropy: _top_entropy,
    MaxProbability: _max_probability,
    Margin: _margin,
    Energy: _energy,
    BinaryEntropy: _binary_entropy,
    SetProbability: _set_probability,
    WorstLabel: _worst_label,
}


def _softmax(graph: "Graph", logits: str, name: str) -> str:
    return graph.add("Softmax", logits, name=name, axis=-1)


def _sigmoid(graph: "Graph", logits: str, name: str) -> str:
    return graph.add("Sigmoid", logits, name=name)


# From the graph, logits and the name of the output to the probabilities that a task answers.
PROBABILITIES: Mapping[type[Task], Callable[["Graph", str, str], str]] = {
    SingleLabel: _softmax,
    MultiLabel: _sigmoid,
}
