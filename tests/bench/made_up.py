"""A run of the bench with made-up figures."""

from dataclasses import replace

from fastbert.bench.results import Achieved, Bench, Measurement, Rate, Ratio

EARLY = Measurement(
    "FastBERT onnx int8, max_drop=0.005",
    "onnx",
    "int8",
    2,
    32,
    rows_per_second=1234.5,
    p50_ms=None,
    p95_ms=None,
    p99_ms=None,
    accuracy=0.9125,
    agreement=0.9875,
    mean_exit_layer=3.0,
    layers=12,
    share_of_saving=0.87,
    share_of_saving_by_tokens=0.93,
)
FULL = replace(
    EARLY,
    name="FastBERT onnx int8, full depth",
    rows_per_second=300.0,
    mean_exit_layer=12.0,
    share_of_saving=None,
    share_of_saving_by_tokens=None,
)
PIPELINE = replace(
    FULL, name="Hugging Face pipeline", runtime="torch", precision="fp32", rows_per_second=100.0
)


def alone(row: Measurement, p50_ms: float) -> Measurement:
    return replace(row, batch_size=1, p50_ms=p50_ms, p95_ms=2 * p50_ms, p99_ms=3 * p50_ms)


FOUND = Bench(
    machine={"cores": 2},
    versions={},
    rows={"bulk": 1_000, "latency": 200},
    rounds=3,
    tokenised_per_second=4321.0,
    products=(
        Rate("torch", "fp32", (2048, 2048, 2048), 150.0),
        Rate("onnx", "int8", (4096, 384, 1536), 1800.0),
        Rate("openvino", "int8", (4096, 384, 1536), 400.0),
    ),
    achieved=(Achieved(FULL.name, "onnx", "int8", 32, 128, 900.0, 0.5, None),),
    contenders=(
        PIPELINE,
        EARLY,
        FULL,
        alone(PIPELINE, 30.0),
        alone(EARLY, 2.5),
        alone(FULL, 8.0),
    ),
    ratios=(
        Ratio(EARLY.name, PIPELINE.name, 32, 12.3, (12.0, 12.3, 13.0)),
        Ratio(EARLY.name, PIPELINE.name, 1, 11.1, (11.0, 11.1, 11.2)),
    ),
)
