"""The section on texts without labels has a row for each way and contender that was measured."""

import json
from pathlib import Path
from typing import Any

from further_texts import further_texts, read_ways


def summary(contender: str, measure: str, full: float) -> dict[str, Any]:
    return {
        "contender": contender,
        "measure": measure,
        "full": full,
        "retention": {"2": 1.0023, "3": 0.9959, "4": 0.9858, "6": None},
        "default_speedup": 2.551,
        "default_drop": -0.0038,
    }


def test_each_way_has_its_rows_with_the_default_measure(tmp_path: Path) -> None:
    ways = {
        "few": {"summary": [summary("separate", "max-probability", 0.84)]},
        "few-and-further": {
            "summary": [
                summary("distill", "max-probability", 0.8484),
                summary("distill", "entropy", 0.8484),
            ]
        },
    }
    path = tmp_path / "unlabeled_sst2_seed42.json"
    path.write_text(json.dumps({"ways": ways}), encoding="utf-8")
    lines = [*further_texts(read_ways(tmp_path))]
    rows = [line for line in lines if line.startswith("| sst2")]
    assert rows == [
        "| sst2, seed 42 | 500 labelled texts | separate | 84.00% | 100.23 | 99.59 | 98.58 | - "
        "| 2.55x | -0.38 |",
        "| sst2, seed 42 | the same and 20,000 without labels | distill | 84.84% | 100.23 | 99.59 "
        "| 98.58 | - | 2.55x | -0.38 |",
    ]


def test_without_measurements_there_is_no_section(tmp_path: Path) -> None:
    assert [*further_texts(read_ways(tmp_path))] == []
