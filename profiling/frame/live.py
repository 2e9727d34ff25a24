"""What a long command does now, on stderr: a status line on a terminal, else plain lines with the time."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.text import Text

# Lines that differ in numbers alone are counters: where lines stay, one in so many seconds is enough.
_COUNTER_SECONDS = 10.0


@contextlib.contextmanager
def announcing() -> Iterator[Callable[[str], None]]:
    """Yield what shows a line: until the next one, or for good where nothing can be erased."""
    console = Console(stderr=True, highlight=False)
    if console.is_terminal:
        with console.status("starting") as status:
            yield lambda line: status.update(Text(line))
        return
    last, shown = "", 0.0

    def announce(line: str) -> None:
        nonlocal last, shown
        words = re.sub(r"\d+", "", line)
        if words != last or time.monotonic() - shown > _COUNTER_SECONDS:
            console.print(Text(f"{time.strftime('%H:%M:%S')} {line}"), soft_wrap=True)
            last, shown = words, time.monotonic()

    yield announce
