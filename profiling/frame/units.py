"""Numbers as a person reads them."""

from __future__ import annotations

from collections.abc import Sequence


def format_bytes(num_bytes: float) -> str:
    """Bytes for a person, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(num_bytes) < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} PB"


def format_duration(seconds: float) -> str:
    """Seconds for a person, in the unit that one thinks in: ``12.3 s``, ``5.2 hours``, ``103 years``."""
    for unit, size in (("years", 365.25 * 86_400), ("days", 86_400.0), ("hours", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            number = seconds / size
            return f"{number:,.0f} {unit}" if number >= 10 else f"{number:.1f} {unit}"
    return f"{seconds:.3g} s"


def format_span(numbers: Sequence[int]) -> str:
    """From the least to the largest, such as ``5`` or ``31 to 58``."""
    least, most = min(numbers), max(numbers)
    return f"{least}" if least == most else f"{least} to {most}"
