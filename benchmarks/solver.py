"""How long it takes to solve goals from 100,000 recorded rows of 12 exits, on one core.

    OMP_NUM_THREADS=1 python benchmarks/solver.py

The first goal draws the path and measures every point of it; the next ones only look them up.
"""

import time
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
from guarantee import simulated
from machine import write_result

from fastbert.calibration.goal import Goal

ROWS, REPEATS = 100_000, 3
GOALS = (
    Goal(max_drop=0.005),
    Goal(min_speedup=2.0),
    Goal(saving=0.5),
    Goal(max_drop=0.01, metric="f1"),
    Goal(max_drop=0.01, confidence=0.95),
)


def main() -> None:
    """Time each goal, the first one from scratch."""
    rows = simulated(np.random.default_rng(1), ROWS)
    seconds: dict[str, list[float]] = {}
    for _ in range(REPEATS):
        fresh = replace(rows)  # nothing remembered
        for goal in GOALS:
            start = time.process_time(), time.perf_counter()
            fresh.solve(goal)
            name = " ".join(f"{key}={value}" for key, value in goal.as_dict().items())
            seconds.setdefault(name, []).append(time.perf_counter() - start[1])
            print(name, f"{seconds[name][-1]:.2f} s", f"{time.process_time() - start[0]:.2f} CPU s")
    result: dict[str, Any] = {name: median(times) for name, times in seconds.items()}
    write_result("solver", {"rows": ROWS, "exits": 12, "classes": 3, "median_seconds": result})


if __name__ == "__main__":
    main()
