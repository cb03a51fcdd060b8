"""OpenVINO: a whole model as one graph, in which one text runs no further than it has to.

A call of the runtime takes 0.1 ms whatever it computes, as much as a third of a layer of width 384
that reads one short text. So all segments lie in one graph, each in an `If` of its own, which runs
if the text has not left. No `If` lies within another: nested ones were as fast where a text leaves
at once, and slower where it goes on. The first segment has one too, though it always runs: in bf16
OpenVINO rounds what the outermost graph computes on the way to an `If`, logits and doubt included,
and leaves the last steps of a branch in float32, as in a segment.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from openvino import Model, Output, opset8, opset13

from fastbert.exits.criteria import Entropy, Measure
from fastbert.exits.label_measures import BinaryEntropy, SetProbability, WorstLabel
from fastbert.exits.measures import Energy, Margin, MaxProbability, TopEntropy
from fastbert.runtime.pieces import BOUNDS

ROW = np.array([0, 1], np.int64)  # the axes of [1, classes]


def chain_of(segments: Sequence[Model], measure: Measure) -> Model:
    """Join segments into one graph for a single row, which lets it leave at each exit.

    Args:
        segments: As `fastbert.runtime.openvino_backend.join` makes them, from the embeddings to the
            teacher; all but the last give hidden states. They are used up.
        measure: How doubtful an answer is: one of `DOUBTS`.

    Returns:
        It reads what the segments read, and `bounds`, float32, one for each exit but the last. It
        gives the logits of all exits [exits, classes], and how many of them the row has passed;
        the rest are zeros.
    """
    parameters = {
        parameter.output(0).get_any_name(): opset13.parameter(
            parameter.get_partial_shape(), parameter.get_element_type()
        )
        for parameter in segments[0].get_parameters()
    }
    parameters[BOUNDS] = opset13.parameter([len(segments) - 1], np.float32)
    for name, parameter in parameters.items():
        parameter.output(0).set_names({name})
    given = {name: parameter.output(0) for name, parameter in parameters.items()}
    given["passed"] = opset13.constant(np.int64(0)).output(0)
    stays, answers = _always(given["attention_mask"]), []
    for place, segment in enumerate(segments):
        outcome = _if(segment, given, stays, place, measure)
        answers.append(outcome.pop("logits"))
        stays = outcome.pop("stays", stays)
        given |= outcome
    results = [opset13.concat(answers, 0).output(0), given["passed"]]
    chain = [opset13.result(output) for output in results]
    return Model(chain, list(parameters.values()), "chain")


def _always(attention_mask: Output) -> Output:
    """Append what is true and no constant, for an `If` of a constant is done away with."""
    return opset13.greater_equal(opset13.reduce_max(attention_mask, ROW), np.int64(0)).output(0)


def _if(
    segment: Model, given: Mapping[str, Output], stays: Output, place: int, measure: Measure
) -> dict[str, Output]:
    """Append a segment that runs if the row has stayed, and return what follows from it."""
    then, reads = _layers(segment, given, place, measure)
    otherwise, passes_by = _nothing(then, given)
    node = opset8.if_op(stays)
    node.set_then_body(Model(list(then.values()), list(reads.values()), "layers"))
    node.set_else_body(Model(list(otherwise.values()), list(passes_by.values()), "nothing"))
    for name in {**reads, **passes_by}:
        node.set_input(given[name], reads.get(name), passes_by.get(name))
    return {name: node.set_output(result, otherwise[name]) for name, result in then.items()}


def _layers(
    segment: Model, given: Mapping[str, Output], place: int, measure: Measure
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the results and the parameters of a segment with the judgement about its exit."""
    reads = {each.output(0).get_any_name(): each for each in segment.get_parameters()}
    *hidden, logits = (result.input_value(0) for result in segment.get_results())
    results = {"logits": logits, "passed": opset13.constant(np.int64(place + 1)).output(0)}
    if hidden:
        reads[BOUNDS] = opset13.parameter(given[BOUNDS].get_partial_shape(), np.float32)
        results["hidden"] = hidden[0]
        results["stays"] = _stays(logits, reads[BOUNDS].output(0), place, measure)
    return {name: opset13.result(output) for name, output in results.items()}, reads


def _nothing(
    then: Mapping[str, Any], given: Mapping[str, Output]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return results and parameters of what stands there for a row that has left."""
    passes_by = {
        name: opset13.parameter(given[name].get_partial_shape(), given[name].get_element_type())
        for name in ("hidden", "passed")
        if name in then and name in given
    }
    results = {name: each.output(0) for name, each in passes_by.items()}
    for name in then.keys() - results.keys():
        output = then[name].input_value(0)
        shape = [size.get_length() if size.is_static else 1 for size in output.get_partial_shape()]
        zeros = opset13.constant(np.zeros(shape, np.float32), output.get_element_type())
        results[name] = zeros.output(0)
    return {name: opset13.result(results[name]) for name in then}, passes_by


def _stays(logits: Output, bounds: Output, place: int, measure: Measure) -> Output:
    """Append whether the row stays. Each operator takes as long as a small product, so few do."""
    classes = logits.get_partial_shape()[1].get_length()
    doubt = DOUBTS[type(measure)](measure, logits, classes)
    bound = opset13.gather(bounds, np.int64(place), np.int64(0))
    return opset13.greater_equal(doubt, bound).output(0)


# Measures of doubt, as in `fastbert.exits.measures`, from the logits of one row to a scalar.


def _entropy(measure: Entropy, logits: Any, classes: int) -> Any:
    log_p = opset13.log_softmax(logits, -1)
    summed = _sum(opset13.multiply(opset13.exp(log_p), log_p))
    return opset13.multiply(summed, np.float32(-1 / math.log(classes)))


def _top_entropy(measure: TopEntropy, logits: Any, classes: int) -> Any:
    if classes <= measure.top:
        return _entropy(Entropy(), logits, classes)
    return _entropy(Entropy(), _highest(logits, measure.top), measure.top)


def _max_probability(measure: MaxProbability, logits: Any, classes: int) -> Any:
    largest = opset13.reduce_max(opset13.softmax(logits, -1), ROW)
    scale = np.float32(classes / (classes - 1))
    return opset13.subtract(scale, opset13.multiply(largest, scale))


def _margin(measure: Margin, logits: Any, classes: int) -> Any:
    best = _highest(opset13.softmax(logits, -1), 2)
    lead = _sum(opset13.multiply(best, np.array([[1, -1]], np.float32)))
    return opset13.subtract(np.float32(1), lead)


def _energy(measure: Energy, logits: Any, classes: int) -> Any:
    largest = opset13.reduce_max(logits, ROW, keep_dims=True)
    total = _sum(opset13.exp(opset13.subtract(logits, largest)))
    free = opset13.add(opset13.reduce_max(largest, ROW), opset13.log(total))
    return opset13.sigmoid(opset13.subtract(np.float32(math.log(classes)), free))


def _binary_entropy(measure: BinaryEntropy, logits: Any, labels: int) -> Any:
    yes_or_no = opset13.multiply(logits, np.array([[1], [0]], np.float32))
    log_p = opset13.log_softmax(yes_or_no, 0)
    summed = _sum(opset13.multiply(opset13.exp(log_p), log_p))
    return opset13.multiply(summed, np.float32(-1 / (labels * math.log(2))))


def _set_probability(measure: SetProbability, logits: Any, labels: int) -> Any:
    likelier = opset13.sigmoid(opset13.absolute(logits))
    scale = np.float32(-1 / math.expm1(-labels * math.log(2)))
    likeliest = opset13.multiply(opset13.reduce_prod(likelier, ROW), scale)
    return opset13.subtract(scale, likeliest)


def _worst_label(measure: WorstLabel, logits: Any, labels: int) -> Any:
    nearest = opset13.reduce_min(opset13.absolute(logits), ROW)
    less_likely = opset13.sigmoid(opset13.negative(nearest))
    return opset13.multiply(less_likely, np.float32(2))


def _sum(values: Any) -> Any:
    return opset13.reduce_sum(values, ROW)


def _highest(logits: Any, count: int) -> Any:
    return opset13.topk(logits, np.int64(count), -1, "max", "value").output(0)


DOUBTS: Mapping[type[Measure], Callable[[Any, Any, int], Any]] = {
    Entropy: _entropy,
    TopEntropy: _top_entropy,
    MaxProbability: _max_probability,
    Margin: _margin,
    Energy: _energy,
    BinaryEntropy: _binary_entropy,
    SetProbability: _set_probability,
    WorstLabel: _worst_label,
}
