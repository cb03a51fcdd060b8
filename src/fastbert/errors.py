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
    """A file or a row of it cannot be used; the message starts with the file and the line."""


class FolderError(FastBertError):
    """A model folder is incomplete, damaged or not ours; the message names the file."""


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
