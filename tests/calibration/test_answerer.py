"""What computed answers can be named and compared."""

from dataclasses import fields

from fastbert.calibration.answerer import TIMED_PARTS, TORCH, Answerer, PartTimes


def test_an_answerer_is_named_by_runtime_and_precision() -> None:
    assert str(Answerer("onnx", "int8")) == "onnx in int8"
    assert str(TORCH) == "torch in fp32"


def test_answers_of_another_precision_are_of_another_answerer() -> None:
    assert Answerer("onnx", "fp32") != Answerer("onnx", "int8")
    assert Answerer("onnx", "fp32") == Answerer("onnx", "fp32")


def test_every_timed_part_has_its_time() -> None:
    assert tuple(part.name for part in fields(PartTimes) if part.default is not None) == TIMED_PARTS
    assert PartTimes(1.0, 2.0, 3.0, 4.0).processor is None
