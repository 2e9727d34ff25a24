"""Files that are called pictures and are none that can be read here: what they are, by their first bytes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

NEEDS_HEIF = "HEIC, which needs pillow-heif: pip install 'gkt-edge[data]'"
DAMAGED = "damaged, or no image at all"
_HEAD_BYTES = 512
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
# Any picture in such a file, of whatever coding: HEIC unless it says AVIF as well.
_ANY_BRANDS = {b"mif1", b"msf1", b"mif2"}
_AVIF_BRANDS = {b"avif", b"avis"}
_JXL = "JPEG XL: save it as JPEG or PNG"
_BEGINNINGS = (
    (b"%PDF", "a PDF: save its pictures as JPEG or PNG"),
    (b"\x1a\x45\xdf\xa3", "a film: save frames of it as JPEG or PNG"),
    (b"PK\x03\x04", "an archive: unpack it"),
    (b"\xff\x0a", _JXL),
    (b"\0\0\0\x0cJXL ", _JXL),
)
_MARKUP = re.compile(rb"\s*(?:\xef\xbb\xbf)?\s*<(!doctype|html|\?xml|svg)\b", re.IGNORECASE)


def kind_of_unknown(source: Any, *, can_read_heif: bool) -> str:
    """Say what a file is that Pillow does not know.

    Args:
        source: Its path, or the file, open.
        can_read_heif: Whether pillow-heif is there: HEIC that it does not know either is damaged.

    Returns:
        The reason why it is left out, with what helps; the same for all files of the kind.
    """
    head = _head(source)
    if not head:
        return "empty"
    if head[4:8] == b"ftyp":
        return _kind_of_container(head, can_read_heif=can_read_heif)
    for beginning, kind in _BEGINNINGS:
        if head.startswith(beginning):
            return kind
    if markup := _MARKUP.match(head):
        is_picture = b"<svg" in head.lower()
        named = "a drawing (SVG): save it as PNG" if is_picture else "a page (HTML): get the picture in it"
        return named if is_picture or markup[1].lower() != b"?xml" else DAMAGED
    return DAMAGED


def _kind_of_container(head: bytes, *, can_read_heif: bool) -> str:
    """ISO/IEC 14496-12: a length, ``ftyp``, the brand, a version, brands that it is compatible with."""
    end = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12], *(head[begin : begin + 4] for begin in range(16, end - 3, 4))}
    if brands & _AVIF_BRANDS:
        return "AVIF that cannot be read here: save it as JPEG or PNG"
    if brands & (_HEIC_BRANDS | _ANY_BRANDS):
        return DAMAGED if can_read_heif else NEEDS_HEIF
    return "a film: save frames of it as JPEG or PNG"


def _head(source: Any) -> bytes:
    if isinstance(source, Path):
        with source.open("rb") as stream:
            return stream.read(_HEAD_BYTES)
    source.seek(0)
    return bytes(source.read(_HEAD_BYTES))
