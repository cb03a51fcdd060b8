"""How fast this machine multiplies matrices, and how much of that a whole model reaches.

Each runtime multiplies in its own arithmetic, here and now, at the same number of threads, taking
turns with the models, so both meet the same machine. A product counts by its best round, since it
stands for what is possible; a model by its median.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from fastbert.bench.contenders import LoadedModel
from fastbert.bench.machine import BF16_FLAGS, machine
from fastbert.bench.plain import onnx_session
from fastbert.bench.results import Achieved, Rate
from fastbert.exits.criteria import EntropyCriterion
from fastbert.exits.engine import classify
from fastbert.shape import config_value
from fastbert.text import TokenBatch
from fastbert.timing import time_rounds

Shape = tuple[int, int, int]
"""Rows, inner width and columns of a product."""

SHAPES: tuple[Shape, ...] = ((2048, 2048, 2048), (4096, 384, 1536), (4096, 1536, 384))
BATCH = (32, 128)  # rows and tokens of the models' batch


@dataclass(frozen=True)
class _Product:
    """A product that is ready to run."""

    runtime: str
    precision: str
    shape: Shape
    run: Callable[[], object]

    @property
    def operations(self) -> int:
        """Two for each multiply and add."""
        return 2 * int(np.prod(self.shape, dtype=np.int64))


def measure_rates(
    models: Sequence[LoadedModel], threads: int, rounds: int
) -> tuple[tuple[Rate, ...], tuple[Achieved, ...]]:
    """Measure matrix products and the models at full depth, turn by turn.

    Args:
        models: This model in its runtimes.
        threads: Processor threads of a product.
        rounds: How often each has its turn.

    Returns:
        The best shape of each runtime and precision, and what each model achieved.
    """
    products = {
        f"{product.runtime} {product.precision} {product.shape}": product
        for shape in SHAPES
        for product in _products(shape, threads)
    }
    stacks = {model.full_depth: _stack(model) for model in models}
    runs = {name: product.run for name, product in products.items()} | stacks
    for run in runs.values():
        run()
    seconds = time_rounds(runs, rounds)

    best: dict[tuple[str, str], Rate] = {}
    for name, product in products.items():
        gops = product.operations / float(seconds[name].min()) / 1e9
        key = product.runtime, product.precision
        if key not in best or gops > best[key].gops:
            best[key] = Rate(*key, product.shape, gops)
    rates = tuple(best.values())
    return rates, tuple(
        achieved(model, float(np.median(seconds[model.full_depth])), rates) for model in models
    )


def achieved(model: LoadedModel, seconds: float, rates: Sequence[Rate]) -> Achieved:
    """Compare a model at full depth with products of its precision.

    Args:
        model: What was run on a batch of `BATCH`.
        seconds: How long it took.
        rates: Those of products.
    """
    rows, length = _batch_shape(model)
    gops = rows * float(model.classifier.folder.shape.full_flops(length)) / seconds / 1e9
    same = [rate for rate in rates if rate.precision == model.precision]
    own = [rate for rate in same if rate.runtime == model.runtime]
    return Achieved(
        model.full_depth,
        model.runtime,
        model.precision,
        rows,
        length,
        gops,
        gops / max(rate.gops for rate in same) if same else None,
        gops / max(rate.gops for rate in own) if own else None,
    )


def _batch_shape(model: LoadedModel) -> tuple[int, int]:
    """Return `BATCH`, shorter where the encoder has fewer positions; RoBERTa's start at 2."""
    rows, length = BATCH
    positions = config_value(model.classifier.folder.model_config, "max_position_embeddings")
    return rows, min(length, positions - 2)


def _stack(model: LoadedModel) -> Callable[[], object]:
    """Return what runs a batch of random tokens, without padding, through every layer."""
    classifier, shape = model.classifier, _batch_shape(model)
    vocabulary = classifier.tokenizer.vocab_size
    batch = TokenBatch(
        np.random.default_rng(0).integers(vocabulary, size=shape),
        np.ones(shape, np.int64),
        np.zeros(shape, np.int64) if classifier.tokenizer.gives_segments else None,
    )
    return lambda: classify(classifier.backend, batch, EntropyCriterion(0.0))


# The products of each runtime that is installed.


def _products(shape: Shape, threads: int) -> Iterator[_Product]:
    rows, inner, columns = shape
    random = np.random.default_rng(0)
    left = random.standard_normal((rows, inner), np.float32)
    right = random.standard_normal((columns, inner), np.float32)
    # Activations of 7 bits, as in exports: with 8, sums overflow on processors without VNNI.
    left_int8 = random.integers(128, size=(rows, inner)).astype(np.uint8)
    right_int8 = random.integers(-127, 128, size=(columns, inner)).astype(np.int8)
    if find_spec("torch"):
        yield from _torch_products(shape, left, right)
    if find_spec("onnx") and find_spec("onnxruntime"):
        for precision, operator, a, b in (
            ("fp32", "MatMul", left, right),
            ("int8", "MatMulInteger", left_int8, right_int8),
        ):
            yield _Product("onnx", precision, shape, _onnx_product(operator, a, b, threads))
    if find_spec("openvino"):
        for precision, run in _openvino_products(left, right, right_int8, threads):
            yield _Product("openvino", precision, shape, run)


def _torch_products(shape: Shape, left: np.ndarray, right: np.ndarray) -> Iterator[_Product]:
    import torch

    a, b = torch.from_numpy(left), torch.from_numpy(right).T
    yield _Product("torch", "fp32", shape, lambda: a @ b)
    if BF16_FLAGS & set(machine()["flags"]):
        a_bf16, b_bf16 = a.bfloat16(), torch.from_numpy(right).bfloat16().T
        yield _Product("torch", "bf16", shape, lambda: a_bf16 @ b_bf16)


def _onnx_product(
    operator: str, left: np.ndarray, right: np.ndarray, threads: int
) -> Callable[[], object]:
    """Return a product with a constant; in int8 of unsigned with signed ones, the fast kernel."""
    from onnx import TensorProto, helper, numpy_helper

    kind = helper.np_dtype_to_tensor_dtype(left.dtype)
    result = TensorProto.FLOAT if operator == "MatMul" else TensorProto.INT32
    graph = helper.make_graph(
        [helper.make_node(operator, ["left", "right"], ["product"])],
        "product",
        [helper.make_tensor_value_info("left", kind, left.shape)],
        [helper.make_tensor_value_info("product", result, (left.shape[0], right.shape[0]))],
        [numpy_helper.from_array(np.ascontiguousarray(right.T), "right")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = onnx_session(model.SerializeToString(), threads)
    return lambda: session.run(None, {"left": left})


def _openvino_products(
    left: np.ndarray, right: np.ndarray, right_int8: np.ndarray, threads: int
) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield products with a constant; in int8 with activations quantised as they come."""
    from openvino import Model, Tensor, opset13

    from fastbert.runtime.openvino_core import open_core

    core = open_core()
    settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    tokens = Tensor(left)

    def product(weights: Any, **own: Any) -> Callable[[], object]:
        given = opset13.parameter(left.shape, np.float32)
        model = Model([opset13.matmul(given, weights, False, True)], [given], "product")
        request = core.compile_model(model, "CPU", settings | own).create_infer_request()
        return lambda: request.infer([tokens])

    yield "fp32", product(opset13.constant(right), INFERENCE_PRECISION_HINT="f32")
    if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        yield "bf16", product(opset13.constant(right), INFERENCE_PRECISION_HINT="bf16")
    scale = opset13.constant(np.full((len(right), 1), 0.01, np.float32))
    compressed = opset13.multiply(opset13.convert(opset13.constant(right_int8), np.float32), scale)
    yield (
        "int8",
        product(
            compressed,
            INFERENCE_PRECISION_HINT="f32",
            DYNAMIC_QUANTIZATION_GROUP_SIZE=left.shape[1],
        ),
    )
