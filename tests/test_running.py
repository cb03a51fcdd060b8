from dataclasses import asdict, fields
from typing import Any, get_args, get_type_hints

import pytest

from fastbert.running import (
    ANYHOW,
    PACKAGES,
    PRECISIONS,
    TORCH_PRECISIONS,
    Dtype,
    Running,
    RunningOptions,
    Runtime,
)


def test_the_options_are_the_fields() -> None:
    hints = get_type_hints(Running)
    assert list(get_type_hints(RunningOptions).items()) == [
        (item.name, hints[item.name]) for item in fields(Running)
    ]


def test_every_runtime_and_dtype_has_its_names() -> None:
    assert set(PRECISIONS) == set(PACKAGES) == set(get_args(Runtime))
    assert set(TORCH_PRECISIONS) == set(get_args(Dtype))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runtime": "tensorrt"}, r"runtime must be one of \('auto', .*, got 'tensorrt'"),
        ({"threads": 0}, "threads must be at least 1, got 0"),
        ({"workers": -2}, "workers must be at least 1, got -2"),
        ({"dtype": "int8"}, r"dtype must be one of \('float32', .*, got 'int8'"),
        ({"runtime": "onnx", "device": "cpu"}, "runtime='onnx' runs on the processor: leave"),
        ({"runtime": "openvino", "device": "cpu"}, "runtime='openvino' runs on the processor"),
        ({"runtime": "onnx", "dtype": "float16"}, "precision of its export: leave dtype='float16'"),
        ({"runtime": "openvino", "dtype": "float32"}, "runtime='openvino' computes in the prec"),
        ({"runtime": "onnx", "cache_folder": "c"}, "and onnx compiles nothing to keep: leave"),
        ({"runtime": "torch", "cache_folder": "c"}, "and torch compiles nothing to keep: leave"),
        ({"device": "cpu", "cache_folder": "c"}, "and torch compiles nothing to keep: leave"),
        ({"dtype": "bfloat16", "cache_folder": "c"}, "and torch compiles nothing to keep: leave"),
    ],
)
def test_what_there_is_not_and_what_has_no_use_is_refused(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        _made_unchecked(**options)


def _made_unchecked(**options: Any) -> None:
    """Make a `Running` without the checks of types that the tests switch on."""
    running = Running()
    for name, value in options.items():
        object.__setattr__(running, name, value)
    running.__post_init__()


def test_where_only_torch_has_a_use_for_the_rest_torch_is_wanted() -> None:
    assert ANYHOW.wanted == "auto"
    assert Running(device="cpu").wanted == Running(dtype="float32").wanted == "torch"
    assert Running("onnx", threads=2).wanted == "onnx"


def test_what_auto_took_keeps_what_it_has_a_use_for() -> None:
    running = Running(threads=2, workers=3, cache_folder="c")
    assert running.by("openvino") == Running("openvino", 2, 3, cache_folder="c")
    assert running.by("torch") == Running("torch", 2, 3)
    assert asdict(Running(dtype="float16").by("torch"))["dtype"] == "float16"
