"""Who hears what a device does: a bar, a log, a test."""

from __future__ import annotations

from typing import Protocol


class DeviceListener(Protocol):
    """Hears what a device does, to show it."""

    def phase(self, name: str, round_num: int, num_images: int, reason: str = "") -> None:
        """Hear that a phase begins: ``train``, ``upload``, ``wait`` (and for what) or ``model``."""
        ...

    def images(self, num_images: int) -> None:
        """Hear that so many images more are done."""
        ...

    def note(self, line: str) -> None:
        """Hear something worth a line of the log."""
        ...
