"""Write bytes and durations as a person reads them."""

from __future__ import annotations

_BYTES = ("B", "kB", "MB", "GB", "TB")
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


def as_bytes(number: float) -> str:
    """``1536`` as ``1.5 kB``."""
    unit = 0
    while number >= 999.5 and unit < len(_BYTES) - 1:
        number, unit = number / 1000, unit + 1
    digits = 0 if not unit or number >= 99.5 else 1
    return f"{number:.{digits}f} {_BYTES[unit]}"


def as_duration(seconds: float) -> str:
    """``5400`` as ``1 h 30 min``: two units at most, seconds with one digit below a minute."""
    if seconds < _MINUTE:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < _HOUR:
        return _two(whole, _MINUTE, "min", 1, "s")
    if whole < _DAY:
        return _two(round(whole / _MINUTE), 60, "h", 1, "min")
    return _two(round(whole / _HOUR), 24, "days" if whole >= 1.98 * _DAY else "day", 1, "h")


def _two(number: int, size: int, name: str, rest_size: int, rest_name: str) -> str:
    many, rest = divmod(number, size)
    return f"{many} {name}" + (f" {rest // rest_size} {rest_name}" if rest else "")


def listed(names: list[str], most: int = 5) -> str:
    """Names, as many as one takes in: ``a, b and 7 others``."""
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most} others"
