"""Reading the small files in which Linux shows battery, temperature, frequency and energy."""

from __future__ import annotations

from pathlib import Path


def read_text(path: Path) -> str | None:
    """Read what a file says, without spaces around it; None if it cannot be read or is empty."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None


def read_number(path: Path) -> float | None:
    """Read the number in a file; None if there is none."""
    try:
        return float(read_text(path) or "")
    except ValueError:
        return None
