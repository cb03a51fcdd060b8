"""Labels: their names in a file, their order, and their numbers."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from reprlib import repr as shown  # cuts what is long
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from fastbert.data.example import Example
from fastbert.errors import DataError


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return the distinct labels, in the order of their numbers if all are integers."""
    distinct = set(names)
    if all(re.fullmatch(r"-?[0-9]+", name) for name in distinct):
        return tuple(sorted(distinct, key=lambda name: (int(name), name)))
    return tuple(sorted(distinct))


def refuse_nothing_to_tell_apart(labels: Sequence[str]) -> None:
    """Refuse fewer than two labels, or two of one name.

    Raises:
        ValueError: They are.
    """
    if len(labels) < 2 or len(set(labels)) < len(labels):
        raise ValueError(f"labels must be at least 2 different names, got {labels}")


def numbers_of(names: Sequence[str], labels: Sequence[str]) -> Int[np.ndarray, " rows"]:
    """Return the place of each name among the labels.

    Raises:
        ValueError: A name is not among them.
    """
    places = {label: place for place, label in enumerate(labels)}
    try:
        return np.array([places[name] for name in names], np.int64)
    except KeyError:
        row, name = next((row, name) for row, name in enumerate(names) if name not in places)
        raise ValueError(f"labels[{row}]: {name!r} is not one of {', '.join(labels)}") from None


def places_of(
    sets: Sequence[Sequence[str]], labels: Sequence[str]
) -> Bool[np.ndarray, "rows labels"]:
    """Return which of the labels each row names.

    Raises:
        ValueError: A name is not among them.
    """
    held = np.zeros((len(sets), len(labels)), bool)
    rows = np.repeat(np.arange(len(sets)), [len(names) for names in sets])
    held[rows, numbers_of([name for names in sets for name in names], labels)] = True
    return held


def label_names(examples: Iterable[Example]) -> tuple[str, ...]:
    """Return the distinct labels, in the order of their numbers if all are integers.

    Raises:
        DataError: There are fewer than two, so there is nothing to tell apart.
    """
    place = "the training data"
    names: set[str] = set()
    for example in examples:
        place = example.place
        names.update(name for name in _named(example) if name is not None)
    if len(names) < 2:
        file = place.rpartition(":")[0] or place
        raise DataError(f"a classifier needs at least 2 labels, found {sorted(names)}", path=file)
    return in_order(names)


def check_labels(examples: Iterable[Example], labels: Collection[str]) -> None:
    """Raise a `DataError` that counts the labels that are not among `labels`, if there are any."""
    known = frozenset(labels)
    counts: Counter[str | None] = Counter()
    first: tuple[Example, str | None] | None = None
    rows = 0
    for example in examples:
        strangers = [name for name in _named(example) if name not in known]
        if strangers:
            first = first or (example, strangers[0])
            counts.update(strangers)
            rows += 1
    if first is not None:
        example, name = first
        listed = ", ".join(
            f"{shown(label)} ({count} rows)" for label, count in counts.most_common(5)
        )
        raise DataError.at_row(
            f"label {shown(name)} is not among the labels of "
            f"training, {shown(sorted(known))}; in all {rows} rows have such labels: "
            f"{listed}{_spelling(name, known)}",
            example.place,
        )


def each_of_one_label(examples: Iterable[Example]) -> Iterator[Example]:
    """Yield the examples, up to one that has a list of labels.

    Raises:
        DataError: There is one.
    """
    for example in examples:
        if isinstance(example.label, tuple):
            raise DataError.at_row(
                f"has a list of labels, {shown(list(example.label))}, and one label is asked for",
                example.place,
            )
        yield example


def each_of_several_labels(examples: Iterable[Example]) -> Iterator[Example]:
    """Yield the examples, up to one that has no list of labels.

    Raises:
        DataError: There is one.
    """
    for example in examples:
        if not isinstance(example.label, tuple):
            raise DataError.at_row(
                f"label {shown(example.label)} is no list of labels; write a list, or say what "
                "separates labels (--label-separator)",
                example.place,
            )
        yield example


def _named(example: Example) -> tuple[Any, ...]:
    """Return the labels that a row names; one that is missing is None."""
    return example.label if isinstance(example.label, tuple) else (example.label,)


def _spelling(stranger: str | None, known: Collection[str]) -> str:
    """Say so where a label of training differs in its spelling only."""
    for label in sorted(known):
        if stranger is not None and _value(stranger) == _value(label):
            return (
                f"; {shown(label)} is the same in another spelling, write both files alike: in "
                "Parquet and JSON the number 1.0 is read as 1, and true as 'true'"
            )
    return ""


def _value(label: str) -> float | str:
    try:
        return float(label)
    except ValueError:
        return label.strip().casefold()
