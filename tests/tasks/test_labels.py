"""Labels have an order, and strangers among them are counted."""

import pytest

from fastbert.data.example import Example
from fastbert.errors import DataError
from fastbert.tasks.labels import check_labels, in_order, label_names, numbers_of


def _examples(*rows: tuple[str, str], file: str = "train.csv") -> list[Example]:
    return [
        Example(f"{file}:{line}", text, label=label) for line, (text, label) in enumerate(rows, 2)
    ]


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["pos", "neg", "pos"], ("neg", "pos")),
        (["10", "9", "2", "-1"], ("-1", "2", "9", "10")),
        (["1", "01", "0"], ("0", "01", "1")),
        (["10", "9", "b"], ("10", "9", "b")),
    ],
)
def test_labels_are_sorted_by_number_if_all_are_numbers(
    labels: list[str], names: tuple[str, ...]
) -> None:
    assert label_names(_examples(*(("t", label) for label in labels))) == names


def test_one_class_only_is_refused() -> None:
    with pytest.raises(DataError, match=r"^train\.csv: .* at least 2 labels, found \['a'\]$"):
        label_names(_examples(("x", "a"), ("y", "a")))
    with pytest.raises(DataError, match=r"at least 2 labels, found \[\]"):
        label_names([])


def test_labels_unknown_to_training_are_counted_and_located() -> None:
    dev = _examples(("a", "x"), ("b", "z"), ("c", "w"), ("d", "z"), file="dev.csv")
    check_labels(dev, ["w", "x", "z"])

    message = (
        r"^dev\.csv:3: label 'z' is not among the labels of training, \['x', 'y'\]; in all 3 rows "
        r"have such labels: 'z' \(2 rows\), 'w' \(1 rows\)$"
    )
    with pytest.raises(DataError, match=message):
        check_labels(dev, ["y", "x"])


@pytest.mark.parametrize(
    ("training", "other"), [("0", "0.0"), ("1.0", "1"), ("true", "True"), ("good", " Good ")]
)
def test_a_label_in_another_spelling_is_called_so(training: str, other: str) -> None:
    message = rf"; '{training}' is the same in another spelling, write both files alike"
    with pytest.raises(DataError, match=message):
        check_labels(_examples(("a", other)), [training, "x"])
    with pytest.raises(DataError, match=r"label None is not .* \(1 rows\)$"):
        check_labels([Example("a:1", "a")], [training, "x"])


def test_rows_without_a_label_are_no_class() -> None:
    assert label_names([Example("a:1", "a"), *_examples(("x", "b"), ("y", "a"))]) == ("a", "b")
    assert in_order(["b", "a", "b"]) == ("a", "b")


def test_labels_become_their_places_and_back() -> None:
    numbers = numbers_of(["b", "c", "b"], ("a", "b", "c"))
    assert (numbers.tolist(), numbers.dtype.kind) == ([1, 2, 1], "i")
    assert numbers_of([], ("a", "b")).shape == (0,)


def test_a_label_without_a_place_is_named_with_its_row() -> None:
    with pytest.raises(ValueError, match=r"labels\[2\]: 'z' is not one of a, b$"):
        numbers_of(["a", "b", "z"], ("a", "b"))
