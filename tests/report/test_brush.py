"""What all figures share: a look of its own, unique ids, axes on which noise is no news."""

import re

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from fastbert.report import brush
from fastbert.report.analysis import Table


def line(table: Table, quality: str, width: float) -> Figure:
    figure, [axes] = brush.new_panels(1, width, height=2.0)
    axes.plot([row["x"] for row in table], color=brush.LIGHT["blue"])
    axes.set_title(quality)
    return figure


POINTS: Table = [{"x": 1.0}, {"x": 3.0}]


def inline(name: str) -> str:
    return brush.inline_svg(line, POINTS, "accuracy", brush.WIDE, name, "A <title>", "What & why")


def test_a_users_own_settings_do_not_show_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = brush.picture(line, POINTS, "accuracy", "png")
    # One that the look sets, and one that it leaves as matplotlib has it.
    with matplotlib.rc_context({"lines.linewidth": 9.0, "lines.linestyle": "--"}):
        assert brush.picture(line, POINTS, "accuracy", "png") == plain
        assert matplotlib.rcParams["lines.linewidth"] == 9.0


def test_an_svg_has_no_date_so_that_the_same_figure_is_the_same_file() -> None:
    first, second = (brush.picture(line, POINTS, "accuracy", "svg") for _ in range(2))
    assert first == second
    assert b"dc:date" not in first


def test_an_svg_in_a_page_has_ids_and_links_of_its_own_and_colours_of_the_page() -> None:
    svg = inline("one")
    ids = re.findall(r'\bid="([^"]*)"', svg)
    assert ids
    assert all(each.startswith("one-") for each in ids)
    targets = re.findall(r'(?:url\(|href=")#([\w-]+)', svg)
    assert set(targets) <= set(ids)
    assert "var(--blue)" in svg
    assert not any(colour in svg for colour in brush.LIGHT.values())
    assert svg.startswith('<svg role="img" aria-labelledby="one-title"')
    assert "A &lt;title&gt;" in svg
    assert "What &amp; why" in svg


def test_panels_stand_under_each_other_or_given_widths_side_by_side() -> None:
    def places(**settings: list[float]) -> list[tuple[float, float]]:
        _, panels = brush.new_panels(2, 6.0, height=3.0, **settings)  # type: ignore[arg-type]
        boxes = [each.get_position() for each in panels]
        return [(round(box.x0, 2), round(box.y0, 2)) for box in boxes]

    (left, high), (also_left, low) = places()
    assert left == also_left
    assert high > low
    (left, high), (right, also_high) = places(columns=[1.0, 2.0])
    assert left < right
    assert high == also_high


def test_rows_are_chosen_by_values_and_sorted_by_a_column() -> None:
    table: Table = [
        {"stage": "a", "speed": 0.5}, {"stage": "a", "speed": None}, {"stage": "b", "speed": 0.1}
    ]  # fmt: skip
    assert brush.rows_with(table, stage="a") == table[:2]
    assert brush.rows_with(table, stage="a", speed=None) == [table[1]]
    assert brush.by_column(table, "speed") == [table[2], table[0]]
    found = brush.accuracies([{"accuracy": 0.5}, {"accuracy": None}])
    assert found[0] == 50
    assert np.isnan(found[1])


@pytest.mark.parametrize(
    ("label", "longest", "shortened"),
    [("short", 5, "short"), ("abcdefghijkl", 9, "abcde…jkl")],
)
def test_a_long_label_keeps_its_ends(label: str, longest: int, shortened: str) -> None:
    assert brush.shortened_label(label, longest) == shortened
    assert len(brush.shortened_label(label, longest)) <= longest


def test_a_small_difference_does_not_fill_an_axis() -> None:
    _, [axes] = brush.new_panels(1, 5.0, height=2.0)
    axes.set_ylim(90.0, 90.1)
    brush.percent_axis(axes)
    bottom, top = axes.get_ylim()
    assert top - bottom == pytest.approx(brush.LEAST_SPAN)
    assert bottom < 90 < top
    assert brush.as_percent(90.5) == "90.5 %"
    axes.set_xlim(2.0, 2.2)
    brush.show_at_least(axes, 1.0)
    left, right = axes.get_xlim()
    assert right - left == pytest.approx(1.0)


@pytest.mark.parametrize(("last", "ticks"), [(4, [4, 3, 2, 1]), (13, [13, 11, 9, 7, 5, 3, 1])])
def test_the_last_layer_has_a_tick(last: int, ticks: list[int]) -> None:
    _, [axes] = brush.new_panels(1, 5.0, height=2.0)
    brush.layer_axis(axes, last)
    assert axes.get_xticks().tolist() == ticks
