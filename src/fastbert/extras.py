"""Optional installs: a missing one is named where it is needed, with the extra that holds it."""

from collections.abc import Iterator
from contextlib import contextmanager

from fastbert.errors import MissingExtraError


@contextmanager
def needs_extra(extra: str, purpose: str) -> Iterator[None]:
    """Turn an import that fails in the block into the advice to install an extra.

    Args:
        extra: The name of the extra, such as `train`.
        purpose: What needs it, as the subject of a sentence.

    Raises:
        MissingExtraError: A package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{purpose} needs {error.name}, which is not installed: "
            f"pip install 'fastbert-kit[{extra}]'"
        ) from error
