"""Heads in early_exit.json: each is read as it was written, and each defect is named."""

import re
from pathlib import Path
from typing import Any

import pytest

from fastbert.errors import FolderError
from fastbert.folder.heads import read_students, read_teacher_head
from fastbert.head_shapes import MeanHead, PaperHead, QueryHead

PATH = Path("early_exit.json")


def test_students_are_read_as_they_were_written() -> None:
    students = (PaperHead("mean", 12, 3), QueryHead(5, 6), QueryHead(5, 6, "learned"), MeanHead())
    written = {"students": [head.as_dict() for head in students]}
    assert read_students(PATH, written) == students


@pytest.mark.parametrize(
    ("said", "expected"),
    [("pretrained", "pretrained"), (PaperHead(width=8).as_dict(), PaperHead(width=8))],
)
def test_a_teachers_head_is_read_as_it_was_written(said: Any, expected: Any) -> None:
    assert read_teacher_head(PATH, {"teacher_head": said}) == expected


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("paper", 'every item of "students" must be an object, got a string'),
        ({"kind": "oracle"},
         "key \"students[1].kind\" must be one of ('paper', 'queries', 'mean'), got 'oracle'"),
        ({"kind": 3}, 'key "students[1].kind" must be a string'),
        ({"pooling": "first", "width": 8, "num_heads": 2}, 'key "students[1].kind" is missing'),
        ({"kind": "queries", "queries": 4}, 'key "students[1].width" is missing'),
        ({"kind": "mean", "width": 4}, 'key "students[1].width" is unknown'),
        ({"kind": "queries", "queries": 4, "width": 8}, 'key "students[1].source" is missing'),
        ({"kind": "queries", "queries": 4.0, "width": 8, "source": "first"},
         'key "students[1].queries" must be a whole number, got a number'),
        ({"kind": "queries", "queries": 4, "width": 8, "source": "last"},
         'key "students[1]": source must be one of (\'first\', \'learned\'), got \'last\''),
        ({"kind": "queries", "queries": 0, "width": 8, "source": "first"},
         'key "students[1]": queries and width must be positive, got 0 and 8'),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_head_is_named(head: Any, message: str) -> None:
    with pytest.raises(FolderError, match=re.escape(message)):
        read_students(PATH, {"students": [{"kind": "mean"}, head]})


@pytest.mark.parametrize("said", ["paper", "other", MeanHead().as_dict()])
def test_a_teacher_has_its_own_head_or_the_papers(said: Any) -> None:
    with pytest.raises(FolderError, match=r'"teacher_head" must be "pretrained" or a head'):
        read_teacher_head(PATH, {"teacher_head": said})
