"""The table of a comparison, cell by cell."""

from fastbert.report.comparison_table import caption, cells, headings, markdown
from tests.report.comparisons import made_up, timed


def test_cells_hold_the_figures_and_mark_what_is_clearly_better_or_worse() -> None:
    found = made_up()
    assert headings(found) == [
        "contender", "measure", "accuracy", "change", "2x", "3x", "4x", "S99", "S98", "area",
        "default", "drop",
    ]  # fmt: skip
    first, second, third = cells(found)
    assert first == [
        "joint", "entropy", "85.12%", "+0.00", "99.00", "95.00", "-", "1.50x", "-", "97.12",
        "2.35x", "0.42",
    ]  # fmt: skip
    assert second[4:7] == ["96.00 ↓", "96.00 =", "-"]
    assert (third[1], third[4], third[5], third[9]) == ("-", "93.00 ↓", "-", "-")


def test_markdown_has_a_line_for_each_row_and_says_what_the_columns_are() -> None:
    lines = markdown(made_up()).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + 3
    assert {line.count("|") for line in table} == {13}
    assert lines[-1] == caption(made_up())
    assert "On 1,234 texts of test, 2 seeds; thresholds are chosen on dev." in lines[-1]
    assert "worse than joint by more than two standard errors" in lines[-1]


def test_measured_times_have_columns_of_their_own() -> None:
    found = timed()
    assert headings(found)[12:] == ["ms", "t default", "t 2x", "t 3x", "t 4x"]
    first, second, third = cells(found)
    faster = "2.00x / 1.60x"
    assert first[12:] == ["40.00 / 10.00", faster, faster, "2.50x / 1.90x", "-"]
    assert second[13] == "0.90x / 0.80x"
    assert third[12] == "16.00 / 4.00"
    assert "openvino:int8 on 1 thread, one text at a time / in batches of 32" in caption(found)
    assert "times faster than all layers of plain" in caption(found)


def test_what_a_runtime_refused_has_empty_cells() -> None:
    found = timed()
    settings = found["times"]["summary"][1]["settings"]
    settings.update(dict.fromkeys(settings))
    assert cells(found)[1][12:] == ["-"] * 5
