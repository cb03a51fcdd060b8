"""The curve of the model card; the figures of the report are tested with its page."""

from typing import Any

import pytest

from fastbert.report import brush, figures


def table(*points: tuple[float, float, float], series: str = "speed") -> list[dict[str, Any]]:
    """Return rows of (speed, accuracy, speed-up)."""
    names = ("setting", "accuracy", "speedup_flops")
    return [{"series": series, **dict(zip(names, point, strict=True))} for point in points]


def test_speeds_in_steps_of_a_tenth_are_named() -> None:
    rows = table((0.0, 0.9, 1.0), (0.2, 0.89, 2.0), (0.35, 0.88, 2.6), (0.7, 0.85, 3.5))
    [axes] = figures.tradeoff(rows, "accuracy", brush.WIDE).axes
    assert [text.get_text() for text in axes.texts] == ["speed 0", "0.2", "0.7"]


def test_a_difference_within_noise_does_not_fill_the_figure() -> None:
    rows = table((0.0, 0.900, 1.0), (0.5, 0.899, 3.0))
    [axes] = figures.tradeoff(rows, "accuracy", brush.WIDE).axes
    bottom, top = axes.get_ylim()
    assert top - bottom > 2  # percent points


@pytest.mark.parametrize("rows", [table((0.0, 1.0, 1.0)), table((0.3, 0.5, 2.0), (0.4, 0.5, 2.0))])
def test_one_place_is_enough_to_draw(rows: list[dict[str, Any]]) -> None:
    drawn = brush.picture(figures.tradeoff, rows, "agreement with the full model", "png")
    assert drawn.startswith(b"\x89PNG")


def test_the_default_is_explained_where_it_is_drawn() -> None:
    rows = table((0.0, 0.9, 1.0), (0.2, 0.89, 2.0))

    def legend(rows: list[dict[str, Any]]) -> list[str]:
        [box] = figures.tradeoff(rows, "accuracy", brush.WIDE).legends
        return [text.get_text() for text in box.get_texts()]

    assert len(legend(rows)) == 1
    chosen = table((0.2, 0.89, 2.0), series="chosen")
    assert legend(rows + chosen)[1:] == ["the default, chosen on held-out texts"]
