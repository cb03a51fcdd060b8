"""This model in every runtime and precision against plain runtimes, on one processor.

    python benchmarks/cpu.py MODEL DATASET --threads 1

MODEL is a calibrated model folder. The times of a layer and an exit are measured first, with
OpenVINO in bfloat16 and one text at a time, so that exits that do not pay in time are not asked;
then `fastbert bench` runs on texts of test, at goals fixed beforehand.
"""

import argparse
import random
import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from machine import RESULTS, SHARED, require_shared, write_result

from fastbert.bench.figure import throughput_png
from fastbert.bench.run import bench
from fastbert.classifier import FastBertClassifier
from fastbert.data import Columns, load_examples
from fastbert.evaluation import stage_times
from fastbert.export.export import export_model
from fastbert.folder import open_folder
from fastbert.goals import Goal

TARGETS = ("openvino:fp32", "openvino:bf16", "openvino:int8", "onnx:fp32", "onnx:int8")
GOALS = (Goal(max_drop=0.0025), Goal(max_drop=0.005))


def main() -> None:
    """Measure the times, then everyone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("dataset")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--latency-rows", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    require_shared()
    dev, test = (
        load_examples(
            SHARED / "data" / options.dataset / f"{split}.parquet", Columns(), needs_label=True
        )
        for split in ("dev", "test")
    )
    random.Random(0).shuffle(test)
    with TemporaryDirectory() as parent:
        model = shutil.copytree(options.model, Path(parent) / "model")
        if not (model / "openvino").is_dir():
            export_model(model, runtime="openvino", precision="bf16")
        classifier = FastBertClassifier.from_pretrained(model, runtime="openvino", threads=1)
        times = stage_times(classifier, dev)
        classifier.save_calibration(replace(classifier.calibration, times=times), "dev.parquet")
        result = bench(
            open_folder(model),
            test,
            runtimes=TARGETS,
            settings=GOALS,
            threads=options.threads,
            batch_size=options.batch_size,
            rows=options.rows,
            latency_rows=options.latency_rows,
            rounds=options.rounds,
        ).as_dict()
    name = f"cpu_{options.dataset}_{options.threads}_threads_batch_{options.batch_size}"
    write_result(name, {"dataset": options.dataset, "times_ms": vars(times), "bench": result})
    (RESULTS / f"{name}.png").write_bytes(throughput_png(result))


if __name__ == "__main__":
    main()
