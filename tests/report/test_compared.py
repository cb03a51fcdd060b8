"""The figure of a comparison: every name, means over the seeds, labels that do not overlap."""

from itertools import pairwise

import numpy as np
import pytest

from fastbert.report.compared import comparison_png, draw, series_of, spread, timed_series_of
from tests.report.comparisons import made_up, timed


def test_the_figure_names_every_contender_and_draws_its_line() -> None:
    figure = draw(made_up(), "accuracy")
    axes, names = figure.axes
    written = [text.get_text() for each in (axes, names) for text in each.texts]
    assert [text for text in written if text] == ["cut-6", "joint, entropy", "joint, margin"]
    assert axes.get_title(loc="left") == "accuracy kept, of the full model's on test"
    assert comparison_png(made_up()).startswith(b"\x89PNG")


def test_a_line_is_the_mean_of_the_seeds_and_ends_where_one_does() -> None:
    entropy, _, cut = series_of(made_up())
    assert (entropy.speedups[0], entropy.speedups[-1]) == (1.0, pytest.approx(3.0))
    assert entropy.kept[0] == pytest.approx(100)
    # At 3 the first seed is on its way from 100 to 90 %, by the logarithm, the other at 90.
    first = 100 - 10 * np.log(3) / np.log(4)
    assert entropy.kept[-1] == pytest.approx((first + 90) / 2)
    assert entropy.marked == (2.0,) or entropy.marked == (2.0, 3.0)
    assert (cut.speedups.tolist(), cut.kept.tolist(), cut.marked) == ([2.0], [90.0], (2.0,))


def test_one_measure_is_not_named() -> None:
    found = made_up()
    found["summary"] = [found["summary"][0], found["summary"][2]]
    assert [line.label for line in series_of(found)] == ["joint", "cut-6"]


def test_labels_keep_their_order_and_distance_and_stay_where_there_is_room() -> None:
    places = [0.5, 0.52, 0.9, 0.51, 0.1]
    moved = spread(places, 0.05)
    order = np.argsort(places, kind="stable")
    gaps = [later - earlier for earlier, later in pairwise(np.array(moved)[order])]
    assert min(gaps) == pytest.approx(0.05)
    assert (moved[2], moved[4]) == (0.9, 0.1)
    assert np.mean([moved[0], moved[1], moved[3]]) == pytest.approx(0.51)


def test_measured_times_have_a_panel_of_their_own_with_all_names() -> None:
    figure = draw(timed(), "accuracy")
    [_, _, axes, names] = figure.axes
    written = {text.get_text() for each in (axes, names) for text in each.texts}
    assert written - {""} == {"cut-6", "joint, entropy", "joint, margin"}
    assert axes.get_xlabel() == "times faster than the full model, measured"
    assert axes.get_xlim()[0] < 0.9  # what is slower than the full model is seen too
    assert comparison_png(timed()).startswith(b"\x89PNG")


def test_what_a_runtime_refused_has_no_timed_line_and_the_others_keep_their_looks() -> None:
    found = timed()
    settings = found["times"]["summary"][0]["settings"]
    settings.update(dict.fromkeys(settings))
    assert [line.number for line in timed_series_of(found)] == [1, 2]
    [upper, _, lower, _] = draw(found, "accuracy").axes
    above = {line.get_color(): line.get_marker() for line in upper.lines}
    below = {line.get_color(): line.get_marker() for line in lower.lines}
    assert above.items() > below.items()


def test_a_timed_line_goes_from_slow_to_fast_through_what_was_measured() -> None:
    entropy, margin, cut = timed_series_of(timed())
    assert (entropy.speedups.tolist(), entropy.kept.tolist()) == ([1, 2, 2.5], [100, 97, 94])
    assert (margin.speedups.tolist(), margin.kept.tolist()) == ([0.9, 1, 2], [101, 100, 97])
    assert (cut.label, cut.speedups.tolist(), cut.marked) == ("cut-6", [2.5], (2.5,))
