"""Where commands print tables and lines: as wide as the terminal, and never folded in a file."""

from __future__ import annotations

import os

from rich.console import Console

# Of a file: no table of ours is as wide, and a line is as long as it is.
_FILE_WIDTH = 240


def console(*, stderr: bool = False) -> Console:
    """Make a console whose width in a file or a pipe is not that of a terminal that nobody has.

    Args:
        stderr: Print to stderr instead of stdout.
    """
    made = Console(stderr=stderr, highlight=False)
    if made.is_terminal or "COLUMNS" in os.environ:
        return made
    return Console(stderr=stderr, highlight=False, width=_FILE_WIDTH)
