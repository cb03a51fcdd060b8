"""What a row of a file becomes: an example, or why it is none."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Columns:
    """The names of a file's columns.

    The pair and id columns are read where the file has them; a pair column with another than the
    default name was asked for, so it must be there. No id makes a row a bad one.
    """

    text: str = "text"
    pair: str = "text_pair"
    label: str = "label"
    id: str = "id"


@dataclass(frozen=True, slots=True)
class Example:
    """A row that can be used.

    Args:
        place: "file:line", or in Parquet "file:row".
        text: The text.
        text_pair: The second text of a pair.
        label: The label, where one was asked for.
        id: What the file has as the row's id, of whatever type.
    """

    place: str
    text: str
    text_pair: str | None = None
    label: str | None = None
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
