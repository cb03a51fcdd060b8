"""This model in every runtime and precision against plain runtimes, on one processor.

    python benchmarks/cpu.py MODEL DATASET --threads 1 --target openvino:bf16 --target onnx:int8

MODEL is a calibrated model folder; what it is not exported for is exported for the run. The goals
are fixed, and thresholds come from dev. With --measure the times of a layer and an exit are
measured first, with OpenVINO and one text at a time, and exits that do not pay in time are not
asked.
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
from fastbert.calibration.goal import Goal
from fastbert.classifier import FastBertClassifier
from fastbert.data.example import Columns, Example
from fastbert.data.read import load_examples
from fastbert.evaluation import part_times
from fastbert.folder.calibration import load_calibration
from fastbert.folder.read import open_folder

TARGETS = ("openvino:fp32", "openvino:bf16", "openvino:int8", "onnx:fp32", "onnx:int8")
GOALS = (Goal(max_drop=0.0025), Goal(max_drop=0.005))


def main() -> None:
    """Measure the times, then everyone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("dataset")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--target", action="append")
    parser.add_argument("--measure", action="store_true")
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
        if options.measure:
            keep_times(model, dev)
        result = bench(
            open_folder(model),
            test,
            runtimes=options.target or TARGETS,
            settings=GOALS,
            threads=options.threads,
            batch_size=options.batch_size,
            rows=options.rows,
            latency_rows=options.latency_rows,
            rounds=options.rounds,
        ).as_dict()
        calibration = load_calibration(open_folder(model))
    name = f"cpu_{options.dataset}_{options.threads}_threads{'_measured' * options.measure}"
    thresholds = {f"max_drop={goal.max_drop}": calibration.solve(goal).thresholds for goal in GOALS}
    facts = {"dataset": options.dataset, "measured": options.measure, "thresholds": thresholds}
    write_result(name, facts | {"bench": result})
    (RESULTS / f"{name}.png").write_bytes(throughput_png(result))


def keep_times(model: Path, dev: list[Example]) -> None:
    """Measure what a layer and an exit take, as `fastbert calibrate --measure` does."""
    classifier = FastBertClassifier.from_pretrained(model, runtime="openvino", threads=1)
    times = part_times(classifier, dev)
    classifier.save_calibration(replace(classifier.calibration, times=times), "dev.parquet")


if __name__ == "__main__":
    main()
