"""What a row that can be used holds."""

from typing import Any

import pytest

from fastbert.data.example import Columns, Example


def test_the_content_of_an_example_is_its_text_or_its_pair() -> None:
    assert Example("x:1", "a").content == "a"
    assert Example("x:1", "a", "").content == ("a", "")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"separator": ""}, "what stands between labels, got an empty string"),
        ({"separator": "|", "labels": ("joy", "anger")}, r"not with \('joy', 'anger'\)"),
        ({"labels": ("joy", "anger", "joy")}, "columns of different names, got"),
    ],
)
def test_columns_that_leave_open_where_labels_stand_are_refused(
    names: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Columns(**names)
