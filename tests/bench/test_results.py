"""What a run found can be asked for by name, and becomes JSON."""

import json
from dataclasses import replace

from fastbert.bench.results import Rate
from tests.bench.made_up import EARLY, FOUND, FULL, PIPELINE


def test_the_bound_is_what_fewer_layers_would_save() -> None:
    assert replace(EARLY, mean_exit_layer=3.0, layers=12).bound == 4.0
    assert FULL.bound == 1.0


def test_the_peak_of_a_precision_is_its_best_product() -> None:
    slower = Rate("onnx", "fp32", (64, 32, 16), 10.0)
    found = replace(FOUND, products=(*FOUND.products, slower))
    assert {precision: rate.gops for precision, rate in found.peak.items()} == {
        "fp32": 150.0,
        "int8": 1800.0,
    }


def test_json_holds_the_run_and_its_peaks() -> None:
    found = FOUND.as_dict()
    names = [row["name"] for row in json.loads(json.dumps(found))["contenders"]]
    assert names == [row.name for row in FOUND.contenders]
    assert list(found["peak"]) == ["fp32", "int8"]
    assert found["peak"]["int8"]["gops"] == 1800.0


def test_a_ratio_is_of_the_two_asked_for_at_that_batch_size() -> None:
    for ratio in FOUND.ratios:
        assert FOUND.ratio(ratio.numerator, ratio.denominator, ratio.batch_size) is ratio
        assert FOUND.ratio(ratio.denominator, ratio.numerator, ratio.batch_size) is None
        assert FOUND.ratio(ratio.numerator, ratio.denominator, ratio.batch_size + 7) is None
    assert len(FOUND.ratios) >= 2
    assert PIPELINE.name in {ratio.denominator for ratio in FOUND.ratios}


def test_json_calls_what_answers_are_worth_by_the_metric_of_the_task() -> None:
    by_f1 = replace(FOUND, metric="micro_f1").as_dict()
    assert [row["micro_f1"] for row in by_f1["contenders"]] == [0.9125] * len(FOUND.contenders)
    assert not any("accuracy" in row for row in by_f1["contenders"])
    assert "metric" not in by_f1
