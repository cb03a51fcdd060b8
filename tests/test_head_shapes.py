"""Heads by depth: how they are spelled, and what is wrong with what is no spelling."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastbert.head_shapes import (
    KINDS,
    HeadShape,
    MeanHead,
    PaperHead,
    QueryHead,
    head_from_dict,
    heads_by_depth,
    in_words,
    parts_of,
    spelled,
)

sizes = st.integers(1, 300)
papers = st.builds(
    lambda pooling, heads, each: PaperHead(pooling, heads * each, heads),
    st.sampled_from(["first", "mean"]),
    sizes,
    sizes,
)
queries = st.builds(QueryHead, sizes, sizes, st.sampled_from(["first", "learned"]))
shapes = papers | queries | st.just(MeanHead()) | st.just(PaperHead())


@pytest.mark.parametrize(
    ("spelling", "expected"),
    [
        ("paper", (PaperHead(),) * 4),
        ("queries", (QueryHead(),) * 4),
        ("mean", (MeanHead(),) * 4),
        ("paper/mean", (PaperHead("mean"),) * 4),
        ("paper:3,queries", (PaperHead(),) * 3 + (QueryHead(),)),
        ("paper:1, mean:3", (PaperHead(),) + (MeanHead(),) * 3),
        ("queries/2/64/learned", (QueryHead(2, 64, "learned"),) * 4),
        ("queries/8/32:2,paper/mean/32/4",
         (QueryHead(8, 32, "first"),) * 2 + (PaperHead("mean", 32, 4),) * 2),
    ],
)  # fmt: skip
def test_a_spelling_gives_every_student_its_head(
    spelling: str, expected: tuple[HeadShape, ...]
) -> None:
    assert heads_by_depth(spelling, 4) == expected


@given(st.lists(shapes, max_size=12).map(tuple))
def test_what_is_spelled_is_read_as_the_same(heads: tuple[HeadShape, ...]) -> None:
    assert heads_by_depth(heads, len(heads)) == heads
    if heads:
        assert heads_by_depth(spelled(heads), len(heads)) == heads
    assert tuple(head_from_dict(head.as_dict()) for head in heads) == heads


def test_what_is_as_usual_need_not_be_said() -> None:
    assert (
        spelled(heads_by_depth("paper/first/128/2:3,queries/4/64/first:8", 11))
        == "paper:3,queries/4"
    )
    assert spelled(heads_by_depth("queries/2/64/first", 11)) == "queries"
    assert spelled(heads_by_depth("queries/2/64/learned", 11)) == "queries/2/64/learned"
    assert spelled(heads_by_depth("mean", 11)) == "mean"


def test_heads_are_told_with_their_numbers() -> None:
    assert in_words(heads_by_depth("paper:3,queries", 11)) == "paper x 3, queries x 8"
    assert in_words(heads_by_depth("paper/mean", 2)) == "paper/mean x 2"
    assert in_words(()) == "none"


def test_a_model_of_one_layer_has_no_students() -> None:
    assert heads_by_depth("paper", 0) == ()


@pytest.mark.parametrize(
    ("spelling", "message"),
    [
        ("", "heads must be of paper, queries, mean, got ''"),
        ("queris:3,paper", "heads must be of paper, queries, mean, got 'queris'"),
        ("paper:3,,mean", "got ''"),
        ("paper,queries", "heads 'paper,queries': only the last part may go without a count, "
         "write paper:1 or another"),
        ("paper:0,mean", "heads 'paper:0': a count must be a positive whole number, got '0'"),
        ("paper:x,mean", "heads 'paper:x': a count must be a positive whole number, got 'x'"),
        ("queries:,mean", "got ''"),
        ("queries/many", "heads 'queries/many': queries must be a whole number, got 'many'"),
        ("queries/0", "heads 'queries/0': queries and width must be positive, got 0 and 64"),
        ("paper/last", "heads 'paper/last': pooling must be one of ('first', 'mean'), got 'last'"),
        ("paper/first/7", "heads 'paper/first/7': width must be a positive multiple of num_heads, "
         "got 7 and 2"),
        ("mean/8", "heads 'mean/8': mean takes no sizes"),
        ("queries/1/2/3", "heads 'queries/1/2/3': source must be one of ('first', 'learned'), "
         "got '3'"),
        ("queries/1/2/first/4", "heads 'queries/1/2/first/4': queries takes no more than "
         "queries/queries/width/source"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_spelling_is_named(spelling: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        parts_of(spelling)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ("paper:5", "one for each of the 4 students of this model, got 5"),
        ("paper:2", "one for each of the 4 students of this model, got 2"),
        ("paper:4,queries", "heads 'paper:4,queries' leave no student for queries"),
        ("paper:9,queries", "leave no student for queries"),
        ((PaperHead(),) * 3, "one for each of the 4 students of this model, got 3"),
    ],
)  # fmt: skip
def test_heads_for_another_number_of_students_are_refused(heads: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        heads_by_depth(heads, 4)


def test_every_kind_is_known_by_its_name() -> None:
    assert {name: kind().as_dict()["kind"] for name, kind in KINDS.items()} == {
        "paper": "paper",
        "queries": "queries",
        "mean": "mean",
    }


@pytest.mark.parametrize("changes", [{"queries": 0}, {"width": -1}])
def test_a_head_that_cannot_be_built_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        QueryHead(**changes)


def test_queries_of_an_unknown_source_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^source must be one of .*, got 'last'$"):
        head_from_dict({"kind": "queries", "source": "last"})
