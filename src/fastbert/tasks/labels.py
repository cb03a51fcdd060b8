"""Labels: their names in a file, their order, and their numbers."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from reprlib import repr as shown  # cuts what is long

import numpy as np
from jaxtyping import Int

from fastbert.data.example import Example
from fastbert.errors import DataError


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return the distinct labels, in the order of their numbers if all are integers."""
    distinct = set(names)
    if all(re.fullmatch(r"-?[0-9]+", name) for name in distinct):
        return tuple(sorted(distinct, key=lambda name: (int(name), name)))
    return tuple(sorted(distinct))


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


def label_names(examples: Iterable[Example]) -> tuple[str, ...]:
    """Return the distinct labels, in the order of their numbers if all are integers.

    Raises:
        DataError: There are fewer than two, so there is nothing to tell apart.
    """
    place = "the training data"
    names: set[str] = set()
    for example in examples:
        place = example.place
        if example.label is not None:
            names.add(example.label)
    if len(names) < 2:
        file = place.rpartition(":")[0] or place
        raise DataError(f"a classifier needs at least 2 labels, found {sorted(names)}", path=file)
    return in_order(names)


def check_labels(examples: Iterable[Example], labels: Collection[str]) -> None:
    """Raise a `DataError` that counts the labels that are not among `labels`, if there are any."""
    known = frozenset(labels)
    strangers = [example for example in examples if example.label not in known]
    if strangers:
        first = strangers[0]
        counts = Counter(example.label for example in strangers).most_common(5)
        listed = ", ".join(f"{shown(label)} ({rows} rows)" for label, rows in counts)
        raise DataError.at_row(
            f"label {shown(first.label)} is not among the labels of "
            f"training, {shown(sorted(known))}; in all {len(strangers)} rows have such labels: "
            f"{listed}{_spelling(first.label, known)}",
            first.place,
        )


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
