"""Optional installs: which are there, and which extra holds a missing one."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version

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


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    versions = {}
    for package in packages:
        with suppress(PackageNotFoundError):  # a folder can be saved again without torch
            versions[package] = version(package)
    return versions
