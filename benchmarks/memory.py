"""Whether `fastbert predict` stays flat: resident memory while it streams 200,000 rows.

    python benchmarks/memory.py MODEL WORK

Writes a file of 200,000 rows made from the sst2 training texts, runs the command on it, and samples
the memory of its process from outside.
"""

import argparse
import csv
import subprocess
import sys
import time
from itertools import cycle, islice
from pathlib import Path

from machine import SHARED, require_shared, write_result

from fastbert.data.example import Columns
from fastbert.data.read import load_examples

ROWS = 200_000
SPEED = 0.9  # the layers do not matter here, only that every row goes through


def main() -> None:
    """Run and sample."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("work", type=Path)
    options = parser.parse_args()
    require_shared()
    source, output = options.work / "rows.csv", options.work / "answers.jsonl"
    write_rows(source)
    program = str(Path(sys.executable).with_name("fastbert"))
    command = [program, "predict", str(options.model), str(source)]
    command += ["--output", str(output), "--speed", str(SPEED)]
    samples: list[tuple[float, float]] = []
    start = time.perf_counter()
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            samples.append((round(time.perf_counter() - start, 1), resident_mib(process.pid)))
            time.sleep(2)
    if process.returncode:
        raise SystemExit(process.returncode)
    with output.open(encoding="utf-8") as lines:
        answered = sum(1 for _ in lines)
    warm = [mib for _, mib in samples[len(samples) // 10 : -1]]
    write_result(
        "memory_predict",
        {
            "rows": ROWS,
            "answered": answered,
            "warm_mib_first_half_max": max(warm[: len(warm) // 2]),
            "warm_mib_second_half_max": max(warm[len(warm) // 2 :]),
            "samples_seconds_mib": samples,
        },
    )
    source.unlink()
    output.unlink()


def write_rows(path: Path) -> None:
    """Write the rows, texts in a circle."""
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = load_examples(SHARED / "data/sst2/train.parquet", Columns(), needs_label=False)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text"])
        writer.writerows(
            (number, text.text) for number, text in enumerate(islice(cycle(texts), ROWS))
        )


def resident_mib(pid: int) -> float:
    """Return the resident memory of a process; 0 when it has just ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except FileNotFoundError:
        return 0.0
    for line in status.splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


if __name__ == "__main__":
    main()
