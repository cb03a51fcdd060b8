"""What a row of a file becomes: an example, or why it is none."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Columns:
    """The names of a file's columns.

    The pair and id columns are read where the file has them; a pair column with another than the
    default name was asked for, so it must be there. No id makes a row a bad one.

    Args:
        text: The column of the text.
        pair: That of the second text of a pair.
        label: That of the label, or of a list of labels.
        id: That of the row's id.
        separator: What stands between the labels in one cell; None where a cell is one label or,
            in JSON lines and Parquet, a list.
        labels: Columns that each say by 1 or 0 whether the label of that name holds; where there
            are some, `label` is not read.

    Raises:
        ValueError: The separator is empty, or goes with `labels`; or two of these have one name.
    """

    text: str = "text"
    pair: str = "text_pair"
    label: str = "label"
    id: str = "id"
    separator: str | None = None
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be read."""
        if self.separator == "":
            raise ValueError("separator must be what stands between labels, got an empty string")
        if self.separator is not None and self.labels:
            raise ValueError(f"separator splits the column of the label, so not with {self.labels}")
        if len(set(self.labels)) < len(self.labels):
            raise ValueError(f"labels must be columns of different names, got {self.labels}")

    @property
    def targets(self) -> tuple[str, ...]:
        """The columns that together say what is right about a row."""
        return self.labels or (self.label,)


@dataclass(frozen=True, slots=True)
class Example:
    """A row that can be used.

    Args:
        place: "file:line", or in Parquet "file:row".
        text: The text.
        text_pair: The second text of a pair.
        label: The label, where one was asked for; several of a row are a tuple of names.
        id: What the file has as the row's id, of whatever type.
    """

    place: str
    text: str
    text_pair: str | None = None
    label: Any = None
    id: object = None

    @property
    def content(self) -> str | tuple[str, str]:
        """The text, or the pair of texts, as tokenizers and classifiers take it."""
        return self.text if self.text_pair is None else (self.text, self.text_pair)


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be used; `error` is one line that says what to do."""

    place: str
    error: str
    id: object = None
