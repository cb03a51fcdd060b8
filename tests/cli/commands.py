"""What is said on the command line, and what goes wrong there."""

import json
import signal
from dataclasses import dataclass
from typing import Any

import pytest

Capture = pytest.CaptureFixture[str]

GOOD = b"text,label\nlovely word1,positive\nawful word2,negative\n"

CALIBRATION_ROWS = 60


@dataclass(frozen=True)
class Trained:
    """A model folder that the command line has written, and what was said meanwhile."""

    folder: str
    stdout: str
    stderr: str


def answers(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def only_line(text: str) -> str:
    [line] = text.splitlines()
    return line


def raising(error: Exception) -> Any:
    def fail(*_arguments: Any, **_options: Any) -> None:
        raise error

    return fail


def interrupt(*_arguments: Any, **_options: Any) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # some shells switch it off
    signal.raise_signal(signal.SIGINT)
