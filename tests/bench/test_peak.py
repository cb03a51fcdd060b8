"""The products that stand for the machine's peak are the products they claim to be."""

import numpy as np
import pytest

from fastbert.bench import peak
from fastbert.bench.contenders import LoadedModel
from fastbert.bench.results import Rate
from fastbert.classifier import FastBertClassifier
from tests.bench.models import varied_folder

SHAPE = (6, 10, 4)  # no two alike, so a swapped axis cannot pass unseen


def test_every_runtime_multiplies_the_same_matrices() -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    found = {
        (product.runtime, product.precision): np.asarray(_array(product.run()), np.float32)
        for product in peak._products(SHAPE, 1)
    }
    assert {("torch", "fp32"), ("onnx", "fp32"), ("openvino", "fp32")} <= found.keys()
    assert {("onnx", "int8"), ("openvino", "int8")} <= found.keys()
    for (_, precision), product in found.items():
        assert product.shape == (6, 4)
        if precision != "int8":
            tolerance = 1e-5 if precision == "fp32" else 0.1
            assert product == pytest.approx(found["torch", "fp32"], abs=tolerance)


def test_int8_products_are_exact() -> None:
    pytest.importorskip("onnxruntime")
    random = np.random.default_rng(1)
    left = random.integers(128, size=(6, 10)).astype(np.uint8)
    right = random.integers(-127, 128, size=(4, 10)).astype(np.int8)
    product = _array(peak._onnx_product("MatMulInteger", left, right, 1)())
    assert np.array_equal(product, left.astype(int) @ right.astype(int).T)


def _array(result: object) -> np.ndarray:
    """Unpack what a runtime returns: a tensor, a list of arrays, or arrays by output."""
    if isinstance(result, list):
        result = result[0]
    elif not hasattr(result, "__array__") and not hasattr(result, "float"):
        result = result[0]  # type: ignore[index]  # OpenVINO's results by output
    if hasattr(result, "float"):
        result = result.float().numpy()
    return np.asarray(result)


def test_operations_are_two_for_each_multiply_and_add() -> None:
    assert peak._Product("torch", "fp32", (4096, 384, 1536), list).operations == (
        2 * 4096 * 384 * 1536
    )


def test_a_model_is_compared_with_its_own_precision(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = varied_folder(tmp_path_factory.mktemp("model") / "model")
    classifier = FastBertClassifier.from_pretrained(folder.path, device="cpu")
    model = LoadedModel(classifier, "torch", "fp32", 1)
    flops = 32 * int(folder.shape.full_flops(32))
    rates = [
        Rate("torch", "fp32", SHAPE, 4.0),
        Rate("onnx", "fp32", SHAPE, 5.0),
        Rate("torch", "bf16", SHAPE, 50.0),
    ]
    found = peak.achieved(model, flops / 2e9, rates)
    assert found.gops == pytest.approx(2.0)
    assert found.share_of_peak == pytest.approx(0.4)
    assert found.share_of_runtime_peak == pytest.approx(0.5)
    elsewhere = peak.achieved(LoadedModel(classifier, "openvino", "bf16", 1), 1.0, rates)
    assert elsewhere.share_of_peak is not None
    assert elsewhere.share_of_runtime_peak is None
