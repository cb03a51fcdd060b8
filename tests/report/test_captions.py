"""Each sentence says the figures of its table, whichever way they lean."""

from typing import Any

import pytest

from fastbert.report import captions
from fastbert.report.analysis import FEW_ROWS, FOCUS_SPEED, MOST_CLASSES, Table

NBSP, TIMES = "\N{NO-BREAK SPACE}", "\N{MULTIPLICATION SIGN}"


def point(series: str, setting: float, accuracy: float | None, up: float) -> dict[str, Any]:
    return {"series": series, "setting": setting, "accuracy": accuracy, "speedup_flops": up}


def tradeoff(at: float, *more: dict[str, Any]) -> str:
    table = [
        point("speed", 0, 0.9, 1.0),
        point("speed", FOCUS_SPEED, at, 2.5),
        point("cut", 3, 0.7, 4.0),
        point("cut", 5, 0.8, 2.4),
        *more,
    ]
    return captions.tradeoff(table, "accuracy")


@pytest.mark.parametrize(
    ("at", "said"),
    [(0.92, "2.0 points more than"), (0.85, "5.0 points less than"), (0.9, "the same as")],
)
def test_a_speed_is_compared_with_the_full_model(at: float, said: str) -> None:
    assert f"{said} the full model's 90.0{NBSP}%" in tradeoff(at)


def test_the_cut_that_is_named_is_the_nearest_in_cost() -> None:
    nearest = f"at layer 5, the nearest in cost at 2.40{TIMES}, gives 80.0"
    assert nearest in tradeoff(0.9)


def test_the_fastest_calibrated_point_is_named_with_its_quality_where_it_is_known() -> None:
    slow, fast = point("calibrated", 0.1, 0.89, 2.0), point("calibrated", 0.2, 0.8, 3.0)
    assert "The fastest" not in tradeoff(0.9)
    assert tradeoff(0.9, slow, fast).endswith(f"point takes 3.00{TIMES} fewer at 80.0{NBSP}%.")
    assert tradeoff(0.9, fast | {"accuracy": None}).endswith(f"point takes 3.00{TIMES} fewer.")


@pytest.mark.parametrize(
    ("flops", "accuracy", "said"),
    [
        (2.0, 0.875, f", with 2.00{TIMES} fewer FLOPs and accuracy 87.5{NBSP}%."),
        (None, 0.875, f"as speed 0 and accuracy 87.5{NBSP}%."),
        (None, None, f"1.50{TIMES} as fast as speed 0."),
    ],
)
def test_the_fastest_run_says_what_is_known_of_it(
    flops: float | None, accuracy: float | None, said: str
) -> None:
    rest = {"speedup_flops": flops, "accuracy": accuracy}
    table = [
        {"speed": 0.0, "seconds": 6.0, "speedup_time": 1.0} | rest,
        {"speed": 0.5, "seconds": 4.0, "speedup_time": 1.5} | rest,
    ]
    sentence = captions.time_tradeoff(table, "accuracy")
    assert sentence.startswith("The fastest run, at speed 0.5, took 4 seconds")
    assert sentence.endswith(said)


def bins(*rows: int) -> Table:
    return [
        {"layer": 2, "from": number / 10, "to": (number + 1) / 10, "rows": count, "accuracy": 0.9}
        for number, count in enumerate(rows)
    ]


def test_only_bins_with_enough_rows_are_spoken_of() -> None:
    said = captions.luha(bins(FEW_ROWS - 1, FEW_ROWS, 1, FEW_ROWS + 2), "accuracy")
    assert f"uncertainty 0.1 to 0.2 have accuracy 90.0{NBSP}% (10 rows)" in said
    assert f"those with 0.3 to 0.4 90.0{NBSP}% (12 rows)" in said
    assert "Too few rows: no two bins of layer 2" in captions.luha(bins(FEW_ROWS, 1), "accuracy")


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ([0.1, 0.2, 0.3, 0.4], f"30.0{NBSP}% of the rows leave within the first 2 layers"),
        ([0.1, 0.2, 0.7], f"10.0{NBSP}% of the rows leave after layer 1"),
    ],
)
def test_the_first_half_of_the_layers_is_counted(shares: list[float], said: str) -> None:
    table = [{"setting": f"speed {FOCUS_SPEED:g}", "share": share} for share in shares]
    other = [{"setting": "speed 0", "share": 0.99}]
    sentence = captions.exit_layers(other + table, "accuracy")
    assert said in sentence
    assert f"{100 * shares[-1]:.1f}{NBSP}% reach the teacher" in sentence


def test_the_median_goes_from_the_first_layer_to_the_last() -> None:
    table = [
        {"measure": "margin", "speed": 0, "layer": 9, "median": 0.99},
        {"measure": "uncertainty", "speed": 0, "layer": 1, "median": 0.75},
        {"measure": "uncertainty", "speed": 0, "layer": 4, "median": 0.125},
        {"measure": "uncertainty", "speed": 0.5, "layer": 5, "median": 0.5},
    ]
    said = captions.uncertainty_by_layer(table, "accuracy")
    assert "goes from 0.75 after layer 1 to 0.12 after layer 4. " in said


def test_each_part_of_training_says_where_it_ended() -> None:
    def epoch(stage: str, accuracy: float | None, up: float | None = None) -> dict[str, Any]:
        return {"stage": stage, "accuracy": accuracy, "speedup_flops": up}

    table = [epoch("teacher", 0.5), epoch("teacher", 0.75), epoch("students", 0.7, 2.0)]
    assert captions.training(table, "accuracy") == (
        f"Fine-tuning ended after 2 epochs with accuracy 75.0{NBSP}%. Distillation ended after "
        f"1 epoch with accuracy 70.0{NBSP}% at speed 0.5 and 2.00{TIMES} fewer FLOPs."
    )
    assert captions.training([epoch("students", None)], "accuracy") == (
        "Distillation ended after 1 epoch."
    )


def test_the_latest_and_the_earliest_class_are_named() -> None:
    def classes(count: int) -> Table:
        return [{"class": f"c{n}", "mean_exit_layer": float(count - n)} for n in range(count)]

    said = captions.per_class(classes(3), "accuracy")
    assert "rows of c0 run longest, 3.0 layers on average, and rows of c2 leave first" in said
    assert "Drawn are" not in said
    assert "Drawn are the 80 of 81" in captions.per_class(classes(MOST_CLASSES + 1), "accuracy")
    assert captions.per_class(classes(1), "accuracy") == "All rows belong to one class, c0."


def test_a_row_is_one() -> None:
    assert [captions.count(rows) for rows in (0, 1, 2_000)] == ["0 rows", "1 row", "2,000 rows"]
