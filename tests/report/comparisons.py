"""A comparison made up by hand, as its JSON has it."""

from typing import Any


def made_up() -> dict[str, Any]:
    """Return two seeds of a curve, of another measure of it, and of a single point."""
    clear, tie = {"mean": -0.03, "error": 0.01, "is_tie": False}, {"mean": 0.01, "is_tie": True}
    summary = [
        row("joint", "entropy", [0.99, 0.95, None], [None] * 3, 0.9712),
        row("joint", "margin", [0.96, 0.96, None], [clear, tie, None], 0.9634),
        row("cut-6", None, [0.93, None, None], [clear, None, None], None),
    ]
    curves = {
        ("joint", "entropy"): ([[1.0, 0.8], [4.0, 0.72]], [[1.0, 0.9], [3.0, 0.81]]),
        ("joint", "margin"): ([[1.0, 0.8], [4.0, 0.70]], [[1.0, 0.9], [3.0, 0.80]]),
        ("cut-6", None): ([[2.0, 0.72]], [[2.0, 0.81]]),
    }
    return {
        "settings": {"rows": {"test": 1234}},
        "metric": "accuracy",
        "reference": "joint",
        "yardsticks": {"42": {"metric": 0.8}, "7": {"metric": 0.9}},
        "summary": summary,
        "seeds": [
            {"contender": name, "measure": measure, "seed": seed, "curve": curve}
            for (name, measure), both in curves.items()
            for seed, curve in zip((42, 7), both, strict=True)
        ],
    }


def row(
    contender: str,
    measure: str | None,
    retention: list[float | None],
    versus: list[dict[str, Any] | None],
    area: float | None,
) -> dict[str, Any]:
    """Return a row of the summary."""
    places = ("2", "3", "4")
    return {
        "contender": contender,
        "measure": measure,
        "full": 0.8512,
        "full_change": -0.00001,
        "full_speedup": 1.0,
        "default_speedup": 2.345,
        "default_drop": 0.0042,
        "exact": dict(zip(places, [0.8] * 3, strict=True)),
        "retention": dict(zip(places, retention, strict=True)),
        "versus": dict(zip(places, versus, strict=True)),
        "retained": {"0.99": 1.5, "0.98": None},
        "area": area,
    }


def timed() -> dict[str, Any]:
    """Return the same with times, of settings that some have and some have not."""
    full, faster = taken(40.0, 1.0, 1.0, 1.0), taken(20.0, 2.0, 1.6, 0.97)
    best = taken(16.0, 2.5, 1.9, 0.94)
    slower = taken(41.0, 0.9, 0.8, 1.01)
    settings = [
        {"full": full, "default": faster, "2": faster, "3": best, "4": None},
        {"full": full, "default": slower, "2": faster, "3": None, "4": None},
        {"full": best, "default": best, "2": best, "3": None, "4": None},
    ]
    found = made_up()
    rows = [
        {"contender": row["contender"], "measure": row["measure"], "settings": of_it}
        for row, of_it in zip(found["summary"], settings, strict=True)
    ]
    times = {
        "full": "plain",
        "runtime": "openvino:int8",
        "threads": 1,
        "batch_size": 32,
        "summary": rows,
    }
    return found | {"times": times}


def taken(ms: float, alone: float, bulk: float, retention: float) -> dict[str, float]:
    """Return what a setting takes."""
    return {
        "alone_ms": ms,
        "bulk_ms": ms / 4,
        "alone_faster": alone,
        "bulk_faster": bulk,
        "retention": retention,
    }
