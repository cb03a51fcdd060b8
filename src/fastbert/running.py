"""How a model is run: the runtimes there are, their precisions, and the packages they need."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypedDict, get_args

Runtime = Literal["openvino", "onnx"]
Precision = Literal["fp32", "bf16", "int8"]

PRECISIONS: dict[Runtime, tuple[Precision, ...]] = {
    "openvino": ("fp32", "bf16", "int8"),
    "onnx": ("fp32", "int8"),
}

RuntimeName = Literal["auto", "torch", "openvino", "onnx"]

PACKAGES: dict[Runtime, str] = {"openvino": "openvino", "onnx": "onnxruntime"}

Dtype = Literal["float32", "bfloat16", "float16"]

TORCH_PRECISIONS: dict[Dtype, str] = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
"""What computing in a type of torch's is called, in calibrations and messages."""


class RunningOptions(TypedDict, total=False):
    """How a classifier may be run, as arguments of `from_pretrained`; see `Running`."""

    runtime: RuntimeName
    threads: int | None
    workers: int | None
    device: str | None
    dtype: Dtype | None
    cache_folder: str | Path | None


@dataclass(frozen=True)
class Running:
    """How a model is run.

    Args:
        runtime: `torch`, `openvino` or `onnx`; `auto` takes the best that `fastbert export` has
            written into the folder and that is installed, and torch where a device or a dtype is
            named.
        threads: Processor threads that one batch may take; all cores by default. Torch has one
            number for the whole process: it stays set, also for what else runs in torch.
        workers: Batches computed at a time. None, for bulk: as many as keep all cores busy with
            `threads` each, one by default, where an export runs; one where torch does.
        device: Where torch shall compute, such as `cpu` or `cuda:0`; a GPU if there is one by
            default. The other runtimes run on the processor and refuse it.
        dtype: What torch shall compute in: `float32`, the default, `bfloat16` or `float16`. The
            other runtimes compute in the precision of their export and refuse it.
        cache_folder: Where OpenVINO keeps what it compiled for the next start; of no use if `auto`
            takes another runtime.

    Raises:
        ValueError: There is no such runtime or dtype, the runtime has no use for `device`, `dtype`
            or `cache_folder`, or `threads` or `workers` is less than 1.
    """

    runtime: RuntimeName = "auto"
    threads: int | None = None
    workers: int | None = 1
    device: str | None = None
    dtype: Dtype | None = None
    cache_folder: str | Path | None = None

    def __post_init__(self) -> None:
        """Refuse what there is not, and what a runtime would leave aside without a word."""
        if self.runtime not in get_args(RuntimeName):
            raise ValueError(
                f"runtime must be one of {get_args(RuntimeName)}, got {self.runtime!r}"
            )
        for name in ("threads", "workers"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise ValueError(f"{name} must be at least 1, got {number}")
        if self.dtype not in (None, *get_args(Dtype)):
            raise ValueError(f"dtype must be one of {get_args(Dtype)}, got {self.dtype!r}")
        self._refuse_what_has_no_use()

    def _refuse_what_has_no_use(self) -> None:
        if self.device is not None and self.runtime in ("openvino", "onnx"):
            raise ValueError(
                f"device says where torch computes, and runtime={self.runtime!r} runs on the "
                f"processor: leave device={self.device!r} out, or ask for runtime='torch'"
            )
        if self.dtype is not None and self.runtime in ("openvino", "onnx"):
            raise ValueError(
                f"dtype says what torch computes in, and runtime={self.runtime!r} computes in the "
                f"precision of its export: leave dtype={self.dtype!r} out, or ask for "
                "runtime='torch'"
            )
        if self.cache_folder is not None and self.wanted in ("torch", "onnx"):
            raise ValueError(
                f"cache_folder keeps what OpenVINO compiles, and {self.wanted} compiles nothing to "
                f"keep: leave cache_folder={str(self.cache_folder)!r} out, or ask for "
                "runtime='openvino'"
            )

    @property
    def wanted(self) -> RuntimeName:
        """The runtime asked for: torch also where only torch has a use for the rest."""
        return "torch" if self.device is not None or self.dtype is not None else self.runtime

    def by(self, runtime: RuntimeName) -> "Running":
        """Return the same with the runtime that was taken, and without what it has no use for."""
        cache_folder = self.cache_folder if runtime == "openvino" else None
        return replace(self, runtime=runtime, cache_folder=cache_folder)


ANYHOW = Running()  # where nobody asks for anything
