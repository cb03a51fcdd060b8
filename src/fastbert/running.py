"""How a model is run: the runtimes there are, their precisions, and the packages they need."""

from typing import Literal

Runtime = Literal["openvino", "onnx"]
Precision = Literal["fp32", "bf16", "int8"]

PRECISIONS: dict[Runtime, tuple[Precision, ...]] = {
    "openvino": ("fp32", "bf16", "int8"),
    "onnx": ("fp32", "int8"),
}

RuntimeName = Literal["auto", "torch", "openvino", "onnx"]

PACKAGES: dict[Runtime, str] = {"openvino": "openvino", "onnx": "onnxruntime"}
