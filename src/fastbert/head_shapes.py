"""The kinds of heads that an exit may have: the widths of each, its FLOPs, and how it is spelled.

The students of a model are a tuple of shapes, one for each of the layers 1 … L-1, so they may
differ by depth. A user writes them as `paper:3,queries`: three of the paper's, then queries. Sizes
stand after slashes, in the order of the fields: `paper/mean/64`, `queries/4/128/learned`.

FLOPs are the true count, see `fastbert.shape`: matrix products alone, of the folded head.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import Field, asdict, dataclass, fields
from itertools import groupby
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Int

DEFAULT_HEADS = "queries"  # of every student, where nobody asks for others
POOLINGS = ("first", "mean")
WORDS = {"pooling": POOLINGS, "source": ("first", "learned")}  # of fields that take one

Counts = int | Int[np.ndarray, "*rows"]


@dataclass(frozen=True)
class HeadShape(ABC):
    """The shape of one head; all its fields have defaults.

    Attributes:
        kind: The name under which it is written down and spelled.
    """

    kind: ClassVar[str]

    @abstractmethod
    def flops(self, length: Counts, hidden_size: int, num_labels: int) -> Int[np.ndarray, "*rows"]:
        """Return the cost of asking it.

        Args:
            length: Tokens, special tokens included and padding not; `n` below.
            hidden_size: Width of the backbone, `d` below.
            num_labels: Classes, `N` below.
        """

    def as_dict(self) -> dict[str, Any]:
        """Return its kind and its fields, as JSON takes them."""
        return {"kind": self.kind, **asdict(self)}

    @property
    def spelling(self) -> str:
        """How a user writes it, without the sizes that are as usual."""
        known, sizes = fields(self), list(asdict(self).values())
        while sizes and sizes[-1] == known[len(sizes) - 1].default:
            sizes.pop()
        return "/".join([self.kind, *map(str, sizes)])


@dataclass(frozen=True)
class PaperHead(HeadShape):
    """The paper's: narrow the tokens, mix them by self-attention, classify what is pooled.

    Args:
        pooling: What is read of the attention: the first token or the mean.
        width: Width of the head, `c` below.
        num_heads: Attention heads, `h` below; they divide the width.

    Raises:
        ValueError: No head can have this shape.
    """

    kind: ClassVar[str] = "paper"
    pooling: Literal["first", "mean"] = "first"
    width: int = 128
    num_heads: int = 2

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        _check_word("pooling", self.pooling)
        if self.width < 1 or self.num_heads < 1 or self.width % self.num_heads:
            raise ValueError(
                "width must be a positive multiple of num_heads, "
                f"got {self.width} and {self.num_heads}"
            )

    def flops(self, length: Counts, hidden_size: int, num_labels: int) -> Int[np.ndarray, "*rows"]:
        """Return the cost, as `fastbert.nn.heads.FoldedPaperHead` computes it.

        Pooling `first`: 2ndc to narrow the tokens, 4hnc for the h heads of the one query to look
        and read, 4hc² + 2cN for what is done once. Pooling `mean`: every token asks, so queries and
        keys cost 4nc², the scores 2n²c and the reading 2hnc, 2hc² + 2cN are done once. In a padded
        batch `mean` costs 2hn² more a row, for the mean over the real tokens only.
        """
        n, c, h = in_64_bits(length), self.width, self.num_heads
        narrow = 2 * n * hidden_size * c
        if self.pooling == "first":
            attention = 4 * h * n * c + 2 * h * c**2
        else:
            attention = 4 * n * c**2 + 2 * n**2 * c + 2 * h * n * c
        return np.asarray(narrow + attention + 2 * h * c**2 + 2 * c * num_labels)


@dataclass(frozen=True)
class QueryHead(HeadShape):
    """Queries that each pool the hidden states themselves, and two layers on what they read.

    Args:
        queries: How many, `K` below.
        width: Inner width, `c` below: of the two layers, and of what turns the first token into
            queries.
        source: Where the queries come from: the `first` token of each text, or `learned`, the same
            for all texts.

    Raises:
        ValueError: No head can have this shape.
    """

    kind: ClassVar[str] = "queries"
    queries: int = 2
    width: int = 64
    source: Literal["first", "learned"] = "first"

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        _check_word("source", self.source)
        if self.queries < 1 or self.width < 1:
            raise ValueError(
                f"queries and width must be positive, got {self.queries} and {self.width}"
            )

    def flops(self, length: Counts, hidden_size: int, num_labels: int) -> Int[np.ndarray, "*rows"]:
        """Return the cost, as `fastbert.nn.pooled_heads.FoldedQueryHead` computes it.

        4nKd for the queries to look and read; 2Kdc + 2cN are done once, and so are 2dc + 2cKd for
        the queries themselves where they come from the first token.
        """
        n, d, k, c = in_64_bits(length), hidden_size, self.queries, self.width
        asking = 2 * d * c + 2 * c * k * d if self.source == "first" else 0
        return np.asarray(asking + 4 * n * k * d + 2 * k * d * c + 2 * c * num_labels)


@dataclass(frozen=True)
class MeanHead(HeadShape):
    """One linear layer on the mean of the real tokens."""

    kind: ClassVar[str] = "mean"

    def flops(self, length: Counts, hidden_size: int, num_labels: int) -> Int[np.ndarray, "*rows"]:
        """Return the cost, as `fastbert.nn.pooled_heads.FoldedMeanHead` computes it.

        2dN; in a padded batch 2nd more a row, for the mean over the real tokens only.
        """
        return np.asarray(2 * hidden_size * num_labels + 0 * in_64_bits(length))


KINDS: dict[str, type[HeadShape]] = {kind.kind: kind for kind in (PaperHead, QueryHead, MeanHead)}

Heads = str | Sequence[HeadShape]  # as a user asks for them


def in_64_bits(value: Counts) -> Int[np.ndarray, "*rows"]:
    """Return a count in 64 bits: the FLOPs of one layer of one row already fill 31."""
    return np.asarray(value, dtype=np.int64)


def head_from_dict(entries: dict[str, Any]) -> HeadShape:
    """Return the shape that `as_dict` wrote.

    Raises:
        ValueError: No head can have this shape.
    """
    sizes = {name: value for name, value in entries.items() if name != "kind"}
    for name in WORDS.keys() & sizes.keys():
        _check_word(name, sizes[name])
    return KINDS[entries["kind"]](**sizes)


def _check_word(name: str, word: Any) -> None:
    if word not in WORDS[name]:
        raise ValueError(f"{name} must be one of {WORDS[name]}, got {word!r}")


def heads_by_depth(heads: Heads, num_students: int) -> tuple[HeadShape, ...]:
    """Return the head of each student, the first layer's first.

    Args:
        heads: A spelling such as `queries`, for all, or `paper:3,queries`, where the last part is
            for all that are left; or the shapes themselves.
        num_students: How many the model has.

    Raises:
        ValueError: It is no spelling, or is for another number of students.
    """
    if not isinstance(heads, str):
        shapes = tuple(heads)
    else:
        parts = parts_of(heads)
        left = num_students - sum(count or 0 for _, count in parts)
        last, is_open = parts[-1][0], parts[-1][1] is None
        if is_open and left < 1 < len(parts):
            raise ValueError(
                f"heads {heads!r} leave no student for {last.spelling}, this model has "
                f"{num_students}"
            )
        counts = [left if count is None else count for _, count in parts]
        shapes = tuple(
            shape for (shape, _), count in zip(parts, counts, strict=True) for _ in range(count)
        )
    if len(shapes) != num_students:
        raise ValueError(
            f"heads must be one for each of the {num_students} students of this model, "
            f"got {len(shapes)}"
        )
    return shapes


def parts_of(spelling: str) -> list[tuple[HeadShape, int | None]]:
    """Return each part of a spelling as a shape and a count; None stands for all that are left.

    Raises:
        ValueError: It is no spelling.
    """
    *before, _ = parts = [_part(part.strip()) for part in spelling.split(",")]
    for shape, count in before:
        if count is None:
            raise ValueError(
                f"heads {spelling!r}: only the last part may go without a count, write "
                f"{shape.spelling}:1 or another"
            )
    return parts


def _part(part: str) -> tuple[HeadShape, int | None]:
    head, colon, count = part.partition(":")
    if colon and (not count.isdecimal() or int(count) < 1):
        raise ValueError(f"heads {part!r}: a count must be a positive whole number, got {count!r}")
    return _head(head), int(count) if colon else None


def _head(spelling: str) -> HeadShape:
    kind, *sizes = spelling.split("/")
    if kind not in KINDS:
        raise ValueError(f"heads must be of {', '.join(KINDS)}, got {kind!r}")
    known = fields(KINDS[kind])
    if len(sizes) > len(known):
        names = "/".join(field.name for field in known)
        takes = f"no more than {kind}/{names}" if known else "no sizes"
        raise ValueError(f"heads {spelling!r}: {kind} takes {takes}")
    values = {
        field.name: _size(spelling, field, size) for field, size in zip(known, sizes, strict=False)
    }
    try:
        return head_from_dict({"kind": kind, **values})
    except ValueError as error:
        raise ValueError(f"heads {spelling!r}: {error}") from error


def _size(spelling: str, field: Field[Any], text: str) -> int | str:
    if isinstance(field.default, str):
        return text
    if not text.isdecimal():
        raise ValueError(f"heads {spelling!r}: {field.name} must be a whole number, got {text!r}")
    return int(text)


def spelled(shapes: Sequence[HeadShape]) -> str:
    """Return the spelling of a model's heads: `paper`, or `paper:3,queries`."""
    *before, last = _runs(shapes) or [("", 0)]
    return ",".join([*(f"{spelling}:{count}" for spelling, count in before), last[0]])


def in_words(shapes: Sequence[HeadShape]) -> str:
    """Return a model's heads with their numbers: `paper x 3, queries x 8`."""
    return ", ".join(f"{spelling} x {count}" for spelling, count in _runs(shapes)) or "none"


def _runs(shapes: Sequence[HeadShape]) -> list[tuple[str, int]]:
    spellings = (shape.spelling for shape in shapes)
    return [(spelling, len(list(run))) for spelling, run in groupby(spellings)]
