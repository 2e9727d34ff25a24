"""What a long command does now, on stderr: a status line or bars on a terminal, else lines with the time."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from typing import Self

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from gkt_core.terminal import console

# Lines that differ in numbers alone are counters: where lines stay, one in so many seconds is enough.
_COUNTER_SECONDS = 10.0


@contextlib.contextmanager
def announcing() -> Iterator[Callable[[str], None]]:
    """Yield what shows a line: until the next one, or for good where nothing can be erased."""
    shown_on = console(stderr=True)
    if shown_on.is_terminal:
        with shown_on.status("starting") as status:
            yield lambda line: status.update(Text(line))
        return
    last, shown = "", 0.0

    def announce(line: str) -> None:
        nonlocal last, shown
        words = re.sub(r"\d+", "", line)
        if words != last or time.monotonic() - shown > _COUNTER_SECONDS:
            shown_on.print(Text(f"{time.strftime('%H:%M:%S')} {line}"), soft_wrap=True)
            last, shown = words, time.monotonic()

    yield announce


class Display:
    """Lines that stay and bars that move, on stderr; where nothing can be erased, the lines alone.

    Attributes:
        bars: Takes tasks, each with ``detail=`` for what stands beside its bar; threads may share it.
    """

    def __init__(self) -> None:
        shown_on = console(stderr=True)
        self.bars = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[detail]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=shown_on,
            transient=True,
            disable=not shown_on.is_terminal,
        )

    def __enter__(self) -> Self:
        """Begin to show."""
        self.bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the terminal as it was."""
        self.bars.stop()

    def say(self, line: str) -> None:
        """Print a line that stays, with the time."""
        self.bars.console.print(Text(f"{time.strftime('%H:%M:%S')} {line}"), soft_wrap=True)
