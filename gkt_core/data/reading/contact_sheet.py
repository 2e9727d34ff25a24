"""A picture of what will be trained on: some images of each class, in rows, with its name."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gkt_core.data.reading.report import counted
from gkt_core.errors import needs
from gkt_core.files import write_atomically

_COLUMNS = 10
_MOST_ROWS = 60
_TILE = 64
_MARGIN = 4
_TEXT = 14


def write_contact_sheet(
    path: Path,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    class_names: Sequence[str],
) -> None:
    """Write a contact sheet as PNG: ten images of each class, spread over all that there are.

    Args:
        path: The file.
        images: ``[N, S, S, 3] uint8``, as they are trained on.
        labels: ``[N] int64``.
        class_names: One name a class.

    Raises:
        MissingExtraError: Pillow is not installed.
        DiskFullError: It cannot be written.
    """
    with needs("data", "Pillow"):
        from PIL import Image, ImageDraw, ImageFont  # noqa: PLC0415 - an extra
    shown = list(enumerate(class_names))[:_MOST_ROWS]
    tile = max(_TILE, images.shape[1])
    row = tile + _TEXT + 2 * _MARGIN
    sheet = Image.new("RGB", (_COLUMNS * (tile + _MARGIN) + _MARGIN, row * len(shown) + _MARGIN), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for number, (label, name) in enumerate(shown):
        members = np.flatnonzero(labels == label)
        top = number * row + _MARGIN
        text = f"{label} {_drawable(name)}: {counted(len(members), 'image')}"
        pen.text((_MARGIN, top), text, fill="black", font=font)
        chosen = members[np.linspace(0, len(members) - 1, min(_COLUMNS, len(members))).astype(np.intp)]
        for column, index in enumerate(chosen):
            # Pixels as they are: nothing smoothed on the way to the eye.
            small = Image.fromarray(images[index]).resize((tile, tile), Image.Resampling.NEAREST)
            sheet.paste(small, (_MARGIN + column * (tile + _MARGIN), top + _TEXT + _MARGIN // 2))
    stream = io.BytesIO()
    sheet.save(stream, "PNG")
    write_atomically(path, stream.getvalue())


def _drawable(name: str) -> str:
    """Give a name in the letters that Pillow's own font has; the number of the class stands before it."""
    letters = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return letters if letters.strip() else "(a name in another script)"
