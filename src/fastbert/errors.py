"""The errors a caller may want to catch. Each message is one line that says what to do.

FastBertError
├── DataError          a file or a row of it cannot be used
├── FolderError        a model folder is incomplete, damaged or not ours
├── BackboneError      an encoder family or checkpoint that cannot be stepped through
├── TrainingError      training cannot start or go on
├── CalibrationError   a goal cannot be met, or the rows cannot tell
├── ExportError        an export would answer otherwise, or the processor cannot run it
└── MissingExtraError  an optional install is needed

A wrong argument is a plain `ValueError`.
"""


class FastBertError(Exception):
    """Base of every error below."""


class DataError(FastBertError):
    """A file or a row of it cannot be used; the message starts with the file and the line.

    Attributes:
        path: The file, as the message calls it ("standard input" where there is none); None where
            no file is to blame.
        line: The line, or in Parquet the row, counted from 1; None where it is the whole file.
    """

    def __init__(self, message: str, *, path: object = None, line: int | None = None) -> None:
        """Take what is wrong; where it is wrong is put before it."""
        place = path if line is None else f"{path}:{line}"
        super().__init__(message if place is None else f"{place}: {message}")
        self.path = None if path is None else str(path)
        self.line = line

    @classmethod
    def at_row(cls, message: str, place: str) -> "DataError":
        """Return the error of a row, whose place is "file:line"."""
        path, _, line = place.rpartition(":")
        if not (path and line.isdecimal()):
            return cls(message, path=place)
        return cls(message, path=path, line=int(line))


class FolderError(FastBertError):
    """A model folder is incomplete, damaged or not ours; the message names the file.

    Attributes:
        path: The folder or the file in it, as the message calls it; None where there is none.
    """

    def __init__(self, message: str, *, path: object = None) -> None:
        """Take what is wrong; where it is wrong is put before it."""
        super().__init__(message if path is None else f"{path}: {message}")
        self.path = None if path is None else str(path)


class BackboneError(FastBertError):
    """An encoder family or checkpoint that cannot be stepped through layer by layer."""


class TrainingError(FastBertError):
    """Training cannot start or go on, such as a loss that is not a number."""


class CalibrationError(FastBertError):
    """A goal cannot be met, or the calibration rows cannot tell; the message says what can."""


class ExportError(FastBertError):
    """An export would answer otherwise than the model, or the processor cannot run it."""


class MissingExtraError(FastBertError):
    """An optional install is needed; the message says which one."""
