"""The option ``--contact-sheet`` of the commands that read images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from gkt_core.config.output_path import OUTPUT_FILE

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


def contact_sheet_option(shown_default: str) -> Callable[[FunctionT], FunctionT]:
    """Add ``--contact-sheet``."""
    return click.option(
        "--contact-sheet",
        type=OUTPUT_FILE,
        help=f"A PNG with some images of each class, as they are trained on.  [default: {shown_default}]",
    )
