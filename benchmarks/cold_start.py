"""How long an exported model takes from a new process to its first answer, and its memory.

    python benchmarks/cold_start.py EXPORT …

Each EXPORT is a calibrated folder with one export. Every run is a process of its own, one thread;
OpenVINO also with its folder of compiled models warm. Memory is resident memory after the first
answer, beside the size of the exported files without the adaptive one.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from machine import write_result

from fastbert.folder.names import ADAPTIVE_FILE

RUNS = 3
PROGRAM = """
import json, sys, time
start = time.perf_counter()
from fastbert import FastBertClassifier
folder, runtime, cache = sys.argv[1:]
classifier = FastBertClassifier.from_pretrained(
    folder, runtime=runtime, threads=1, cache_folder=cache or None
)
loaded = time.perf_counter()
classifier.predict("What a lovely day it was, and then it rained.", max_drop=0.005)
answered = time.perf_counter()
status = open("/proc/self/status").read()
resident = int(status.partition("VmRSS:")[2].split()[0]) * 1024
print(json.dumps([loaded - start, answered - start, resident, "torch" in sys.modules]))
"""


def main() -> None:
    """Start again and again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("exports", type=Path, nargs="+")
    options = parser.parse_args()
    results = []
    for path in options.exports:
        runtime = next(name for name in ("openvino", "onnx") if (path / name).is_dir())
        with TemporaryDirectory() as folder:
            for cache in ["", folder] if runtime == "openvino" else [""]:
                results.append(measure(path, runtime, cache))
                print(results[-1], flush=True)
    write_result("cold_start", {"runs": RUNS, "starts": results})


def measure(path: Path, runtime: str, cache: str) -> dict[str, Any]:
    """Start some processes, the first one to warm up the disk and the cache."""
    command = [sys.executable, "-c", PROGRAM, str(path), runtime, cache]
    found = [
        json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        for _ in range(RUNS + 1)
    ][1:]
    manifest = json.loads((path / runtime / "manifest.json").read_text("utf-8"))
    weights = sum(
        (path / runtime / name).stat().st_size
        for name in manifest["files"]
        if name != ADAPTIVE_FILE
    )
    resident = median(row[2] for row in found)
    return {
        "runtime": runtime,
        "precision": manifest["precision"],
        "compiled_models_kept": bool(cache),
        "loaded_seconds": median(row[0] for row in found),
        "first_answer_seconds": median(row[1] for row in found),
        "resident_mib": resident / 2**20,
        "weights_mib": weights / 2**20,
        "allowed_mib": 1.6 * weights / 2**20 + 150,
        "torch_imported": any(row[3] for row in found),
    }


if __name__ == "__main__":
    main()
