"""The option ``--contact-sheet`` of the commands that read images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


def contact_sheet_option(shown_default: str) -> Callable[[FunctionT], FunctionT]:
    """Add ``--contact-sheet``."""
    return click.option(
        "--contact-sheet",
        type=click.Path(path_type=Path),
        help=f"A PNG with some images of each class, as they are trained on.  [default: {shown_default}]",
    )
