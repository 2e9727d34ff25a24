"""Text of others, as it may go to a terminal or a log."""

from __future__ import annotations

import unicodedata


def printable(text: str, *, lines: bool = False) -> str:
    """Give text of others as it may go to a terminal, whatever it holds.

    What would move a cursor or turn a line round is escaped: control characters (ESC among them), marks of
    direction, halves of surrogate pairs. Everything that is to be seen stays as it is.

    Args:
        text: From a server, a file, anybody.
        lines: Whether ends of lines and tabs stay as well.
    """
    return "".join(
        each
        if (unicodedata.category(each)[0] != "C" and each not in "\u2028\u2029") or (lines and each in "\n\t")
        else each.encode("unicode_escape").decode("ascii")
        for each in text
    )
