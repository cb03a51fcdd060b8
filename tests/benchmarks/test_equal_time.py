"""What the reference is worth at the time of another, and how the page tells it."""

import json
from pathlib import Path
from typing import Any

import pytest
from equal_time import equal_time, read_times, timed, worth_at

OURS: Any = {
    "full": {"alone_ms": 8.0, "bulk_ms": 4.0, "metric": 0.90},
    "default": {"alone_ms": 4.0, "bulk_ms": 2.0, "metric": 0.92},
    "2": {"alone_ms": 4.0, "bulk_ms": 2.0, "metric": 0.92},
    "6": {"alone_ms": 2.0, "bulk_ms": 1.0, "metric": 0.80},
    "3": None,
}


def told(cut_ms: float = 3.0) -> dict[str, Any]:
    cut = {"alone_ms": cut_ms, "bulk_ms": 0.5, "metric": 0.85}
    rows = [
        {"contender": "separate", "settings": OURS},
        {"contender": "cut-6", "settings": dict.fromkeys(OURS, cut)},
        {"contender": "refused", "settings": dict.fromkeys(OURS)},
    ]
    times = {"threads": 1, "rounds": 5, "batch_size": 32, "rows": {"alone": 100, "bulk": 320}}
    return {"machine": {"processor": "A processor"}, "times": times | {"summary": rows}}


def test_between_two_settings_texts_are_shared_out_and_a_worse_slower_one_is_left_aside() -> None:
    assert worth_at(OURS, "alone_ms", 3.0) == pytest.approx(0.86)
    assert worth_at(OURS, "bulk_ms", 3.0) == worth_at(OURS, "alone_ms", 99.0) == 0.92
    assert worth_at(OURS, "alone_ms", 1.9) is None


def test_each_distinct_setting_of_each_contender_stands_once() -> None:
    found = list(timed(told(), "separate"))
    settings = [(one.contender, one.setting) for one in found]
    ours = [("separate", name) for name in ("full", "default", "6x")]
    assert settings == [*ours, ("cut-6", "full")]
    alone, in_batches = found[-1].gains
    assert alone == pytest.approx(0.01)
    assert in_batches is None


def test_the_page_tells_means_over_sets_and_each_set(tmp_path: Path) -> None:
    for name, ms in (("mrpc", 3.0), ("sst2", 2.0)):
        path = tmp_path / f"times_{name}_seed42_openvino-int8.json"
        path.write_text(json.dumps(told(ms)), "utf-8")
    page = "\n".join(equal_time(read_times(tmp_path), "separate", ["sst2", "mrpc", "sst5"]))
    assert "### openvino:int8" in page
    assert "A processor, 1 thread; medians of 5 rounds" in page
    # +1 point on mrpc and -5 on sst2
    assert "| cut-6 | full | -2.00 (1 of 2) | - |" in page
    assert page.index("#### sst2") < page.index("#### mrpc")
    assert "| cut-6 | full | 85.00% | 3.00 | +1.00 | 0.50 | - |" in page
    assert "| separate | 6x | 80.00% | 2.00 | - | 1.00 | - |" in page


def test_without_times_that_is_said() -> None:
    assert list(equal_time({}, "separate", ["sst2"]))[1:] == ["No times were measured yet.\n"]
