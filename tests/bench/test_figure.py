"""The figure of a run shows accuracy or, without labels, agreement."""

from dataclasses import replace

import pytest

from tests.bench.made_up import EARLY, FOUND

pytest.importorskip("matplotlib")

from fastbert.bench.figure import throughput, throughput_png
from fastbert.report.brush import WIDE


def test_the_figure_is_a_picture() -> None:
    assert throughput_png(FOUND.as_dict()).startswith(b"\x89PNG")


def test_without_labels_the_figure_shows_agreement(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []

    def picture(figure: object, rows: object, quality: str, kind: str) -> bytes:
        drawn.append(quality)
        return b""

    monkeypatch.setattr("fastbert.bench.figure.picture", picture)
    throughput_png(FOUND.as_dict())
    throughput_png(replace(FOUND, contenders=(replace(EARLY, accuracy=None),)).as_dict())
    assert drawn == ["accuracy", "agreement"]


def test_there_is_no_figure_without_labels_or_a_plain_model() -> None:
    row = replace(EARLY, accuracy=None, agreement=None)
    with pytest.raises(ValueError, match="no labels"):
        throughput_png(replace(FOUND, contenders=(row,)).as_dict())


def test_points_are_numbered_from_the_fastest_and_coloured_by_how_they_answer() -> None:
    rows = [row for row in FOUND.as_dict()["contenders"] if row["p50_ms"] is None]
    figure = throughput(rows, "accuracy", WIDE)
    [axes] = figure.axes
    speeds = [float(line.get_xdata()[0]) for line in axes.lines]  # type: ignore[index,arg-type]
    assert speeds == sorted((row["rows_per_second"] for row in rows), reverse=True)
    assert [text.get_text() for text in axes.texts] == [str(n + 1) for n in range(len(rows))]
    names = [str(line.get_label()).split("  ")[1] for line in axes.lines]
    assert sorted(names) == sorted(row["name"] for row in rows)
    assert len({line.get_color() for line in axes.lines}) == 3  # early, full depth, plain


def test_the_figure_is_titled_by_the_metric_of_the_task() -> None:
    found = replace(FOUND, metric="micro_f1").as_dict()
    assert throughput_png(found).startswith(b"\x89PNG")
    rows = [row for row in found["contenders"] if row["p50_ms"] is None]
    [axes] = throughput(rows, "micro_f1", WIDE).axes
    assert axes.get_title("left") == "micro F1"
