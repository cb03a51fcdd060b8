"""How a command ends: exit codes, errors and warnings in one line each, and nobody else's chatter.

This is the outermost edge of the program, the only place that turns an exception into words.
"""

import errno
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

import typer

from fastbert.cli.app import app
from fastbert.cli.learning import InterruptedRunError
from fastbert.errors import BackboneError, DataError, FastBertError, FolderError

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130


def main() -> NoReturn:
    """Run the command line and leave with its exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; whatever went wrong is one line on stderr."""
    debug = "--debug" in arguments
    with _own_messages_only(debug):
        try:
            # --debug belongs to no command; sorted to the front it may be typed anywhere.
            arguments = sorted(arguments, key="--debug".__ne__) or ["--help"]
            code = app(arguments, prog_name="fastbert", standalone_mode=False)
            if code == INTERRUPTED:
                _say_interrupted("interrupted")
            return code or 0
        except InterruptedRunError as interruption:
            _say_interrupted(str(interruption))
            return INTERRUPTED
        except Exception as error:  # the edge of the program: a user gets a line, not a traceback
            if debug:
                traceback.print_exc()
            line, code = _line_and_code(error)
            print(f"error: {' '.join(line.split())}", file=sys.stderr)
            return code


def _line_and_code(error: Exception) -> tuple[str, int]:
    match error:
        case typer.TyperException():
            return _usage(error), error.exit_code
        case _ if _is_disk_full(error):
            return str(error), FAILED
        case DataError() | FolderError() | BackboneError():
            return str(error), BAD_INPUT
        case FastBertError() | OSError():
            return str(error), FAILED
        case ValueError():
            return str(error), BAD_INPUT
        case ImportError():
            return f"{error}; install what is missing: pip install 'fastbert-kit[all]'", FAILED
        case _:
            return f"{type(error).__name__}: {error} (--debug shows where)", FAILED


def _usage(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    command = "fastbert" if context is None else context.command_path
    return f"{error.format_message().rstrip('.')}; see `{command} --help`"


def _is_disk_full(error: BaseException | None) -> bool:
    """Return whether a full disk is behind an error; safetensors tells by its text alone."""
    while error is not None:
        if any(os.strerror(code) in str(error) for code in (errno.ENOSPC, errno.EDQUOT)):
            return True
        error = error.__cause__
    return False


def _say_interrupted(message: str) -> None:
    # On a terminal ^C and perhaps a progress bar stand on this line.
    print(f"\n{message}" if sys.stderr.isatty() else message, file=sys.stderr)


@contextmanager
def _own_messages_only(debug: bool) -> Iterator[None]:
    """Show the library's warnings in a line each, and those of Python only with --debug."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("warning: %(message)s"))
    logger = logging.getLogger("fastbert")
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings():
            if not debug:
                warnings.simplefilter("ignore")
            yield
    finally:
        logger.removeHandler(handler)
