"""What a set of examples is checked for, before anything is computed from it."""

from collections.abc import Iterable

from fastbert.data.example import Example


def duplicates_between(train: Iterable[Example], dev: Iterable[Example]) -> int:
    """Return how many rows of `dev` have a text (or pair of texts) that `train` has as well."""
    seen = {(example.text, example.text_pair) for example in train}
    return sum((example.text, example.text_pair) in seen for example in dev)


def count_empty(examples: Iterable[Example]) -> int:
    """Return how many rows have a text, or second text, of nothing but white space."""
    return sum(
        not example.text.strip()
        or (example.text_pair is not None and not example.text_pair.strip())
        for example in examples
    )
