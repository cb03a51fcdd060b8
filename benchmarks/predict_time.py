"""Whether `predict` is as fast as in another checkout: both take turns in processes of their own.

    python benchmarks/predict_time.py OTHER FOLDER [--rounds 15]

OTHER is the root of another checkout, FOLDER a calibrated model folder that both read, with exports
for the runtimes that shall be timed. One thread each; the texts are those of sst2 test. In bulk
1,000 texts are answered 32 at a time by the folder's default, and 100 one by one.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import IO

from machine import SHARED, require_shared, write_result

from fastbert.data.example import Columns
from fastbert.data.read import load_examples

ROOT = Path(__file__).parents[1]
BULK, SINGLE = 1_000, 100
RUNTIMES = ("torch", "onnx", "openvino")

# Answers the texts of a file each time a line says how; the names are the same in both checkouts.
ANSWERS = """
import json, sys, time
from fastbert import FastBertClassifier
folder, runtime, file = sys.argv[1:]
texts = json.load(open(file))
classifier = FastBertClassifier.from_pretrained(folder, runtime=runtime, threads=1)
bulk = lambda: classifier.predict(texts)
single = lambda: [classifier.predict(text) for text in texts[:100]]
works = {"bulk": bulk, "single": single}
print("ready", flush=True)
for line in sys.stdin:
    start = time.perf_counter()
    works[line.strip()]()
    print(time.perf_counter() - start, flush=True)
"""


def main() -> None:
    """Let both answer in turns, and write down the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    require_shared()
    rows = load_examples(SHARED / "data/sst2/test.parquet", Columns(), needs_label=False)
    texts = options.folder.with_name("texts.json")
    texts.write_text(json.dumps([row.text for row in rows[:BULK]]), encoding="utf-8")
    results = {}
    for runtime in RUNTIMES:
        if runtime == "torch" or (options.folder / runtime / "manifest.json").exists():
            results[runtime] = timed(options.other, options.folder, runtime, texts, options.rounds)
            print(runtime, json.dumps(results[runtime]["ratios"]), flush=True)
    write_result("predict_time", {"bulk": BULK, "single": SINGLE, "results": results})


def timed(
    other: Path, folder: Path, runtime: str, texts: Path, rounds: int
) -> dict[str, dict[str, dict[str, list[float]] | float]]:
    """Return the seconds of each turn, and how many times longer the other checkout takes."""
    roots = {"before": other.resolve(), "after": ROOT}
    processes = {name: started(root, folder, runtime, texts) for name, root in roots.items()}
    seconds: dict[str, dict[str, list[float]]] = {}
    for work in ("bulk", "single"):
        taken: dict[str, list[float]] = {name: [] for name in roots}
        for turn in range(rounds + 1):
            for name in sorted(roots, reverse=turn % 2 == 0):
                taken[name].append(ask(processes[name], work))
        seconds[work] = {name: each[1:] for name, each in taken.items()}  # the first is a warm-up
    for process in processes.values():
        process.communicate()
    ratios = {
        work: statistics.median(
            before / after for before, after in zip(each["before"], each["after"], strict=True)
        )
        for work, each in seconds.items()
    }
    return {"seconds": dict(seconds), "ratios": dict(ratios)}


def started(root: Path, folder: Path, runtime: str, texts: Path) -> subprocess.Popen[str]:
    """Start a process that answers with the package of a checkout, and wait until it has loaded."""
    environment = os.environ | {"PYTHONPATH": str(root / "src"), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", ANSWERS, str(folder), runtime, str(texts)],
        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    _stream(process.stdout).readline()
    return process


def ask(process: subprocess.Popen[str], work: str) -> float:
    """Let a process do its work once, and return how many seconds it took."""
    print(work, file=_stream(process.stdin), flush=True)
    return float(_stream(process.stdout).readline())


def _stream(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


if __name__ == "__main__":
    main()
