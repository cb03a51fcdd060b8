import struct
from pathlib import Path
from typing import Any

import pytest

from fastbert.report.figure import curve, draw_curve


def table(*points: tuple[float, float, float]) -> list[dict[str, Any]]:
    """Return rows of (speed, accuracy, speed-up)."""
    names = ("speed", "accuracy", "speedup_flops")
    return [dict(zip(names, point, strict=True)) for point in points]


def labels(rows: list[dict[str, Any]]) -> list[str]:
    [axes] = curve(rows).axes
    return [text.get_text() for text in axes.texts]


def test_each_point_is_labelled_with_its_speed() -> None:
    rows = table((0, 0.9, 1.0), (0.2, 0.89, 2.0), (0.7, 0.85, 3.5))
    assert labels(rows) == ["speed 0", "0.2", "0.7"]


def test_points_that_coincide_share_a_label() -> None:
    rows = table((0, 0.9, 1.0), (0.5, 0.8, 5.9), (0.8, 0.8, 6.0))
    assert labels(rows) == ["speed 0", "0.5, 0.8"]


def test_a_difference_within_noise_does_not_fill_the_figure() -> None:
    [axes] = curve(table((0, 0.900, 1.0), (0.5, 0.899, 3.0))).axes
    bottom, top = axes.get_ylim()
    assert top - bottom > 2  # percent points


@pytest.mark.parametrize("rows", [table((0, 1.0, 1.0)), table((0.3, 0.5, 2.0), (0.4, 0.5, 2.0))])
def test_one_place_is_enough_to_draw(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    draw_curve(rows, tmp_path / "curve.png")

    header = (tmp_path / "curve.png").read_bytes()[:24]
    assert header.startswith(b"\x89PNG")
    assert struct.unpack(">II", header[16:]) == (1080, 600)


@pytest.mark.parametrize(("chosen", "explained"), [(0.2, True), (0.3, False), (None, False)])
def test_the_ring_is_explained_where_there_is_one(chosen: float | None, explained: bool) -> None:
    [axes] = curve(table((0, 0.9, 1.0), (0.2, 0.89, 2.0)), chosen=chosen).axes
    assert ("ring" in axes.get_title(loc="left")) == explained


def test_agreement_is_not_called_accuracy() -> None:
    [axes] = curve(table((0, 1.0, 1.0)), quality="agreement with the full model").axes
    assert axes.get_title(loc="left") == "agreement with the full model"
