"""The page of quality: means and paired errors over sets, marks, and what is missing."""

import json
from pathlib import Path
from typing import Any

import pytest
import quality_page
from quality_page import (
    AVERAGED,
    BEGIN,
    END,
    LINE,
    against,
    kept_at,
    keys_of,
    read,
    write,
    write_readme,
)

from fastbert.exits.measures import DEFAULT_MEASURE

AT = ("2", "3", "4", "6")


def row(contender: str, measure: str | None, kept: float, versus: Any = None) -> dict[str, Any]:
    at = dict.fromkeys(AT, kept) if measure else {"2": kept, "3": None, "4": None, "6": None}
    return {
        "contender": contender,
        "measure": measure,
        "full": 0.9,
        "full_change": -0.012,
        "full_speedup": 1.0 if measure else 2.0,
        "default_speedup": 2.5,
        "default_drop": 0.004,
        "retention": at,
        "retained": {"0.99": 3.0, "0.98": None},
        "area": kept if measure else None,
        "versus": dict.fromkeys(AT, versus),
    }


def told(seed: int, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one set and seed, as `schemes.py` writes it."""
    stages = {"teacher": {"settings": {"epochs": 4}}, "exits": {"settings": {"epochs": 5}}}
    curves = [
        [[1.0, 0.8], [6.0, 0.8 * one["area"]]] if one["area"] else [[2.0, 0.8 * 0.93]]
        for one in rows
    ]
    return {
        "machine": {"processor": "A processor"},
        "settings": {
            "rows": {"train": 4000, "dev": 1200, "test": 3000},
            "max_length": 48,
            "teacher": {"settings": {"epochs": 4}},
            "contenders": [{"name": "separate", "heads": "queries", "stages": stages}],
        },
        "metric": "accuracy",
        "reference": "separate",
        "yardsticks": {str(seed): {"metric": 0.8}},
        "seconds": {"teacher": 600.0, "separate": 900.0, "PABEE": None},
        "summary": rows,
        "seeds": [
            {key: one[key] for key in ("contender", "measure")} | {"seed": seed, "curve": curve}
            for one, curve in zip(rows, curves, strict=True)
        ],
    }


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Return results of two sets and two seeds, in one of which a contender is missing."""
    worse = {"mean": -0.03, "error": 0.01, "is_tie": False}
    kept = {
        ("sst2", 42): (0.99, 0.95, 0.96),
        ("sst2", 43): (0.97, 0.95, 0.94),
        ("mrpc", 42): (0.98, 0.93, 0.97),
        ("mrpc", 43): (0.90, None, 0.97),
    }
    for (name, seed), (separate, pabee, patient) in kept.items():
        rows = [row("separate", DEFAULT_MEASURE, separate), row("cut-6", None, 0.93, worse)]
        if pabee is not None:
            rows.append(row("PABEE", DEFAULT_MEASURE, pabee, worse))
            rows.append(row("PABEE", "patience", patient, worse | {"mean": -0.011}))
        if name == "mrpc":
            rows[1]["retained"] = {"0.99": None, "0.98": None}  # of cut-6
        path = tmp_path / f"schemes_{name}_seed{seed}.json"
        path.write_text(json.dumps(told(seed, rows)), "utf-8")
    return tmp_path


def cells(page: str, start: str) -> list[list[str]]:
    """Return the cells of each line that begins so."""
    return [
        line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith(f"| {start}")
    ]


def test_differences_are_paired_by_set_and_seed_with_the_error_over_sets(results: Path) -> None:
    found = against(read(results), ("PABEE", "patience"), kept_at("3"))
    assert found is not None
    # sst2 by both seeds: -0.03; mrpc by the seed that both have: -0.01.
    assert found.mean == pytest.approx(-0.02)
    assert found.error == pytest.approx(0.01)


def test_a_contender_stands_with_the_default_measure_and_its_best(results: Path) -> None:
    found = read(results)
    assert keys_of(found, "PABEE") == [("PABEE", DEFAULT_MEASURE), ("PABEE", "patience")]
    assert keys_of(found, "separate") == [("separate", DEFAULT_MEASURE)]
    assert keys_of(found, "cut-6") == [("cut-6", None)]


def test_the_page_tells_means_marks_and_what_is_missing(results: Path) -> None:
    page = results / "quality.md"
    page.write_text(f"By hand.\n{LINE}old", "utf-8")
    write(read(results), {}, [], page)
    written = page.read_text("utf-8")
    assert written.startswith(f"By hand.\n{LINE}")
    assert "old" not in written
    assert page.with_suffix(".png").read_bytes().startswith(b"\x89PNG")

    ran = cells(written, "sst2 | 4,000")[0]
    assert ran == [
        "sst2", "4,000 / 1,200 / 3,000", "48", "4", "42, 43", "50 (without 2 that were stopped)",
        "A processor",
    ]  # fmt: skip
    assert cells(written, "separate | teacher")[0][1] == "teacher 4 exits 5; queries"
    separate, pabee, patient, cut = (
        cells(written, f"{start} | 2 of 8")[0]
        for start in (
            f"separate | {DEFAULT_MEASURE}",
            f"PABEE | {DEFAULT_MEASURE}",
            "PABEE | patience",
            "cut-6 | -",
        )
    )
    assert separate[3:9] == ["96.00"] * 5 + ["-"]
    assert pabee[3] == "94.00 ↓"  # -3 and -5 points, an error of 1
    assert patient[8] == "-2.00 ± 1.00 ↓"
    assert cut[3:6] == ["93.00 =", "-", "-"]  # -5 and -1 points, an error of 2
    assert cut[9:] == ["3.00x (1)", "2.50x", "+0.40", "-1.20"]
    on_sst2 = cells(written, "PABEE | patience | 42, 43")[0]
    assert on_sst2[4] == "95.00 ="  # 1.1 points, an error of 1
    assert "- mrpc, seed 43: paper, distill, plain, joint, SWEET, PABEE, COSEE-like" in written
    assert "- rte, seed 42: all" in written
    assert "### thucnews_title\n\nnot run yet" in written


def test_without_results_all_is_not_run_yet(tmp_path: Path) -> None:
    write(read(tmp_path), {}, [], tmp_path / "quality.md")
    written = (tmp_path / "quality.md").read_text("utf-8")
    assert len(cells(written, "separate | not run yet")) == 2
    assert written.count("not run yet") > len(AVERAGED)
    assert not (tmp_path / "quality.png").exists()


def test_the_readme_has_the_means_of_who_has_all_sets(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quality_page, "AVERAGED", ("sst2", "mrpc"))
    readme = results / "README.md"
    readme.write_text(f"Before.\n{BEGIN}old\n{END}After.\n", "utf-8")
    found = read(results)
    del found["mrpc"][43], found["sst2"][43]
    found["mrpc"][42]["summary"] = [
        row for row in found["mrpc"][42]["summary"] if row["contender"] != "PABEE"
    ]
    for _ in range(2):
        write_readme(found, readme)
    written = readme.read_text("utf-8")
    assert written.startswith(f"Before.\n{BEGIN}\n| ")
    assert written.endswith(f"|\n\n{END}After.\n")
    assert "PABEE" not in written
    [separate, cut] = cells(written, "`")
    assert separate[1:] == ["98.50"] * 4 + ["2.50x", "+0.40"]
    assert cut[1:] == ["93.00", "-", "-", "-", "-", "-"]
