import csv
import io
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest

from fastbert.exits.recorded import RecordedExits
from fastbert.head_shapes import PaperHead
from fastbert.report import analysis
from fastbert.report.brush import NARROW, WIDE
from fastbert.report.data import ReportData
from fastbert.report.page import cell, exhibits, write_report
from fastbert.shape import ModelShape
from fastbert.tasks.single_label import SingleLabel
from tests.report import several_labels

ALERT = "<script>alert(1)</script>"
VOID = {"meta", "link", "br", "img", "hr", "input"}


def made_up(exits: int, rows: int, classes: int, **changes: Any) -> ReportData:
    random = np.random.default_rng(11)
    truth = random.integers(0, classes, rows)
    logits = random.normal(size=(exits, rows, classes))
    logits[:, np.arange(rows), truth] += np.linspace(1, 5, exits)[:, None]
    report = ReportData(
        name="a model",
        task=SingleLabel(tuple(f"class{number}" for number in range(classes))),
        num_layers=exits,
        recorded=RecordedExits(logits),
        truth=truth,
        lengths=random.integers(3, 50, rows),
        shape=ModelShape(32, 64, exits, classes, (PaperHead(),) * (exits - 1)),
    )
    return replace(report, **changes)


def full(**changes: Any) -> ReportData:
    """Return a report with everything a report can have."""
    quality = {"accuracy": 0.875, "macro_f1": 0.8, "agreement": 0.9}
    everything: dict[str, Any] = {
        "texts": [f"text {ALERT}"] * 90,
        "points": [
            {
                "thresholds": [0.25, 0.5, 0.125],
                **quality,
                "mean_exit_layer": 2.5,
                "speedup_flops": 1.75,
            }
        ],
        "doubts": np.random.default_rng(5).random((3, 90)),
        "criterion_name": "learned",
        "calibration": {"rows": 1234, "labeled": True, "of_my_own": {"a": [1, 2.5]}},
        "guarantees": [
            {
                "max_drop": 0.01,
                "metric": "accuracy",
                "confidence": 0.95,
                "mean_exit_layer": 3.0,
                "speedup_flops": 1.25,
                "thresholds": [0.1, 0.2, 0.3],
            },
            {"max_drop": 0.001, "metric": "accuracy", "confidence": 0.95, "refused": "too few"},
        ],
        "timings": [
            {"speed": 0.0, "seconds": 6.0, "rows_per_second": 15.0, "accuracy": 0.9},
            {"speed": 0.5, "seconds": 2.0, "rows_per_second": 45.0, "accuracy": 0.85},
        ],
        "history": {
            "teacher": [{"epoch": 1, "loss": 0.5, "accuracy": 0.9}],
            "students": [{"epoch": 1, "loss": 2.0, "accuracy": 0.8, "speedup_flops": 1.5}],
        },
        "facts": {"python": "3.11.9"},
    }
    return made_up(4, 90, 3, **{**everything, **changes})


def page(report: ReportData, folder: Path) -> str:
    write_report(report, folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page with everything a page can have."""
    return page(full(), tmp_path_factory.mktemp("report"))


class Outline(HTMLParser):
    """Checks that tags nest, and collects elements and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, attribute: str) -> list[str]:
        return [found for _, attributes in self.elements if (found := attributes.get(attribute))]


def test_the_page_is_well_formed_and_loads_nothing(html: str) -> None:
    outline = Outline(html)
    names = [tag for tag, _ in outline.elements]
    assert names.count("h1") == names.count("main") == 1
    assert not {"script", "img", "iframe", "object"} & set(names)
    assert "://" not in html
    assert all(address.startswith(("#", "data:")) for address in outline.values("href"))
    assert all(address.startswith("#") for address in re.findall(r"url\((.*?)\)", html))
    assert not outline.values("src")
    assert "@import" not in html


def test_ids_are_unique_and_every_reference_has_its_target(html: str) -> None:
    outline = Outline(html)
    ids = outline.values("id")
    assert len(ids) == len(set(ids))
    references = [address[1:] for address in outline.values("href") if address.startswith("#")]
    references += re.findall(r"url\(#(.*?)\)", html)
    references += [one for value in outline.values("aria-labelledby") for one in value.split()]
    references += outline.values("aria-describedby")
    assert set(references) <= set(ids)


def test_every_figure_has_words_for_those_who_cannot_see_it(html: str) -> None:
    svgs = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(svgs) == 2 * 7
    for svg in svgs:
        root = ElementTree.fromstring(svg)
        assert root.get("role") == "img"
        assert [child.tag for child in list(root)[:2]] == ["title", "desc"]
        assert all(child.text for child in list(root)[:2])
        assert root.find(".//text") is not None  # letters, not outlines


def test_figures_follow_light_and_dark(html: str) -> None:
    for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        assert not re.search(r"#[0-9a-f]{6}\b", svg)
        assert set(re.findall(r"var\(--(\w+)\)", svg)) >= {"surface", "ink", "muted"}
    for scheme in ("light", "dark"):
        assert scheme in html


def test_texts_and_names_of_users_are_escaped(tmp_path: Path) -> None:
    report = full(
        name=ALERT,
        task=SingleLabel((ALERT, "$x^2$ & <b>", "意图")),
        criterion_name=ALERT,
        calibration={ALERT: ALERT},
        facts={ALERT: ALERT},
        guarantees=[{"max_drop": 0.1, "metric": ALERT, "confidence": 0.9, "refused": ALERT}],
    )
    html = page(report, tmp_path)
    assert "<script" not in html
    text = Outline(html).text
    assert ALERT in text
    assert "$x^2$ & <b>" in text  # no formula
    assert "意图" in text


def test_tables_hold_what_was_given(html: str) -> None:
    text = Outline(html).text
    thresholds, speedup = "0.25, 0.5, 0.125", "1.25\N{MULTIPLICATION SIGN}"
    for said in ("1,234", "a 1, 2.5", thresholds, "too few", "3.11.9", "learned", speedup):
        assert said in text
    assert "of my own" in text


@pytest.mark.parametrize(
    ("value", "column", "written"),
    [
        (None, "rows", "\N{EN DASH}"),
        (0.875, "accuracy", "87.5\N{NO-BREAK SPACE}%"),
        (1234, "rows", "1,234"),
        (2.345678, "seconds", "2.346"),
        (2.0, "speedup_flops", "2.00\N{MULTIPLICATION SIGN}"),
        (True, "labeled", "yes"),
        ([1, 0.5], "anything", "1, 0.5"),
    ],
)
def test_values_are_written_for_reading(value: Any, column: str, written: str) -> None:
    assert cell(value, column) == written


def test_the_numbers_of_each_figure_can_be_saved(html: str) -> None:
    report = full()
    outline = Outline(html)
    saved = {
        str(attributes["download"]): unquote(str(attributes["href"]).partition(",")[2])
        for _, attributes in outline.elements
        if "download" in attributes
    }
    assert saved == {f"{exhibit.name}.csv": exhibit.csv for exhibit in exhibits(report)}

    rows = list(csv.DictReader(io.StringIO(saved["per_class.csv"])))
    expected = analysis.per_class(report)
    assert [row["class"] for row in rows] == [row["class"] for row in expected]
    assert [float(row["accuracy"]) for row in rows] == [row["accuracy"] for row in expected]


def test_figures_are_written_as_png_svg_and_csv(tmp_path: Path) -> None:
    report = full()
    write_report(report, tmp_path / "new" / "report.html", tmp_path / "a" / "figures")
    names = {path.name for path in (tmp_path / "a" / "figures").iterdir()}
    assert names == {
        f"{figure}.{kind}"
        for figure in (
            "tradeoff",
            "time_tradeoff",
            "luha",
            "exit_layers",
            "uncertainty_by_layer",
            "training",
            "per_class",
        )
        for kind in ("png", "svg", "csv")
    }
    for path in (tmp_path / "a" / "figures").iterdir():
        if path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG")
        elif path.suffix == ".svg":
            assert ElementTree.parse(path).getroot().tag.endswith("svg")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["report.html"]


def test_the_same_report_gives_the_same_page(tmp_path: Path) -> None:
    report = made_up(3, 40, 2)
    assert page(report, tmp_path) == page(report, tmp_path)


def test_77_classes_are_all_drawn(tmp_path: Path) -> None:
    report = made_up(3, 800, 77)
    html = page(report, tmp_path)
    wide = html[html.index('<div class="wide"><svg role="img" aria-labelledby="per_class') :]
    drawn = re.findall(r">(class\d+)</text>", wide[: wide.index("</svg>")])
    assert sorted(drawn) == sorted(report.labels)


def test_a_report_of_hardly_anything_is_written(tmp_path: Path) -> None:
    text = Outline(page(made_up(2, 1, 2), tmp_path)).text
    assert "Where rows leave" in text
    for absent in ("Training", "Timings", "Calibration", "Machine and versions"):
        assert absent not in text


def test_without_labels_nothing_is_called_accuracy(tmp_path: Path) -> None:
    html = page(made_up(4, 70, 3, truth=None), tmp_path)
    text = Outline(html).text
    assert "agreement with the teacher" in text
    assert "no labels" in text
    assert "accuracy" not in text.lower()


def test_speeds_without_a_full_run_are_listed_but_not_compared(tmp_path: Path) -> None:
    text = Outline(page(full(timings=[{"speed": 0.5, "seconds": 2.0}]), tmp_path)).text
    assert "Timings" in text
    assert "measured time" not in text


def test_what_was_there_stays_if_writing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*paths: Any) -> None:
        raise OSError("disk full")

    (tmp_path / "report.html").write_text("before")
    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="disk full"):
        write_report(made_up(2, 30, 3), tmp_path / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text() == "before"


def test_more_classes_than_fit_are_cut_off_and_long_names_shortened(tmp_path: Path) -> None:
    name = "{0:03}_a_name_that_is_far_too_long_for_an_axis_{0:03}"
    labels = tuple(name.format(number) for number in range(99))
    html = page(made_up(2, 900, 99, task=SingleLabel(labels)), tmp_path)
    wide = html[html.index('<div class="wide"><svg role="img" aria-labelledby="per_class') :]
    drawn = re.findall(r">(\d{3}_[^<]*…[^<]*)</text>", wide[: wide.index("</svg>")])
    assert len(drawn) == 80
    assert "Drawn are the 80 of 99 classes" in html
    assert all(len(name) == 36 and name[:3] == name[-3:] for name in drawn)
    assert set(labels) <= set(re.findall(r"<td[^>]*>(\d{3}_[^<]*)</td>", html))  # the table has all


def test_a_report_of_several_labels_speaks_of_labels_and_f1(tmp_path: Path) -> None:
    worth = {"micro_f1": 0.875, "macro_f1": 0.75, "row_f1": 0.625}
    report = several_labels.made_up(
        texts=["a text"] * several_labels.ROWS,
        points=[{"thresholds": [0.25, 0.5, 0.125], **worth, "speedup_flops": 1.75}],
        timings=[{"speed": 0.0, "seconds": 6.0, **worth}, {"speed": 0.5, "seconds": 2.0, **worth}],
        history={"teacher": [{"epoch": 1, "micro-f1": 0.875}]},
        guarantees=[{"max_drop": 0.01, "metric": "row_f1", "confidence": 0.95, "refused": "few"}],
    )
    html = page(report, tmp_path)
    text = Outline(html).text
    for said in (
        "150 rows, 3 labels, 4 layers",
        "Micro F1 and FLOPs",
        "Micro F1 and measured time",
        "Which labels leave late",
        "micro F1 of the full model",
        "micro F1 at speed 0.5",
        "the micro F1 is",
        "have row F1",
        "with micro F1 87.5",
        "teacher row F1",
        "62.5\N{NO-BREAK SPACE}%",
    ):
        assert said in text, said
    assert "accuracy" not in html
    assert "class" not in text.replace("per_class.csv", "")

    numbers = {exhibit.name: exhibit.csv.partition("\n")[0] for exhibit in exhibits(report)}
    assert numbers["tradeoff"].startswith("series,setting,micro_f1,macro_f1,row_f1,agreement,")
    assert numbers["luha"].endswith(",row_f1")
    assert numbers["per_class"] == "label,rows,mean_exit_layer,row_f1,teacher_row_f1"
    assert "micro_f1" in numbers["training"].split(",")


def test_without_truth_several_labels_have_agreement_and_no_accuracy(tmp_path: Path) -> None:
    report = several_labels.made_up(truth=None)
    assert "accuracy" not in page(report, tmp_path)
    numbers = {exhibit.name: exhibit.csv.partition("\n")[0] for exhibit in exhibits(report)}
    assert numbers["per_class"] == "label,rows,mean_exit_layer,agreement"
    assert numbers["tradeoff"].startswith("series,setting,agreement,micro_f1,macro_f1,mean")


@pytest.mark.parametrize(("width", "title"), [(WIDE, "row F1"), (NARROW, "row F1")])
def test_the_name_of_a_metric_is_whole_at_any_width(width: float, title: str) -> None:
    [exhibit] = [one for one in exhibits(several_labels.made_up()) if one.name == "per_class"]
    _, right = exhibit.draw(exhibit.table, exhibit.quality, width).axes
    assert right.get_title("left") == title
