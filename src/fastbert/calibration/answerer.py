"""What computed the answers of a calibration, and how long its parts took."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Answerer:
    """What computed answers. Thresholds chosen from them are meant for it alone.

    Args:
        runtime: `torch`, `openvino` or `onnx`.
        precision: `fp32`, `bf16`, `int8` or, of torch, `fp16`.
    """

    runtime: str = "torch"
    precision: str = "fp32"

    def __str__(self) -> str:
        """Name it in a message."""
        return f"{self.runtime} in {self.precision}"


TORCH = Answerer()
TIMED_PARTS = ("start", "layer", "student", "teacher")


@dataclass(frozen=True)
class PartTimes:
    """How long the parts of the model take for one text, in milliseconds.

    Args:
        start: Tokenising and embedding.
        layer: One encoder layer.
        student: One student.
        teacher: The teacher's head.
        processor: On which processor they were measured; None where nobody knows.
    """

    start: float
    layer: float
    student: float
    teacher: float
    processor: str | None = None
