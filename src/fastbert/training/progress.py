"""How far a long piece of work is: a bar on a terminal, lines where there is none.

A log file or a CI page gets a line now and then, so that hours of training are no silence, and at
most one for each percent, so that they are no flood either.
"""

import sys
import time
from collections.abc import Callable
from typing import Any

from tqdm.auto import tqdm

PAUSE = 4.0  # seconds between lines at least; the last step before one may take as long again


class Progress:
    """Steps that are done of a known number; what is shown goes to stderr."""

    def __init__(
        self,
        title: str,
        total: int,
        unit: str,
        done: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Name the work, and say how many steps it has and which of them are done already."""
        self.title = title
        self.total = total
        self.clock = clock
        self.shown = "", 0  # the part and percentage of the last line
        self.shown_at = clock()
        self.bar: tqdm[Any] = tqdm(
            total=total,
            initial=done,
            desc=title,
            unit=unit,
            dynamic_ncols=True,
            leave=False,
            disable=None,  # where stderr is no terminal
        )

    def move_to(self, done: int, part: str = "") -> None:
        """Show how many steps are done; `part` says what lines add, such as `epoch 1 of 2`."""
        if not self.bar.disable:
            self.bar.update(done - self.bar.n)
            return
        line = part, 100 * done // self.total
        if line != self.shown and self.clock() - self.shown_at >= PAUSE:
            self.shown, self.shown_at = line, self.clock()
            self.write(", ".join(filter(None, (part, f"{line[1]} %"))))

    def note(self, text: str) -> None:
        """Show a figure beside the bar."""
        self.bar.set_postfix_str(text)

    def write(self, text: str) -> None:
        """Print a line that stays, above the bar if there is one."""
        tqdm.write(f"{self.title}: {text}", file=sys.stderr)

    def close(self) -> None:
        """Take the bar away."""
        self.bar.close()
