"""Waiting between two steps while the battery is low or the processor hot, where Linux says so.

Linux shows batteries in ``/sys/class/power_supply`` and temperatures in ``/sys/class/thermal``. Where
there are no such files nothing ever waits. A device that waits goes on only when things are clearly
better, or it would stop and start with every step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.machine.sysfs import read_number, read_text

SYSFS = Path("/sys")
BATTERY_MARGIN_PERCENT = 5.0
TEMPERATURE_MARGIN_CELSIUS = 5.0
_LOOK_EVERY_SECONDS = 5.0
_WAIT_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Battery:
    """All batteries of the machine together.

    Attributes:
        percent: How full they are on average, 0 to 100.
        is_discharging: Whether the machine lives on them now.
    """

    percent: float
    is_discharging: bool


def read_battery(sysfs: Path = SYSFS) -> Battery | None:
    """Read the machine's own batteries, not those of a mouse; None where there are none."""
    levels, states, is_plugged = [], [], False
    for supply in sorted((sysfs / "class/power_supply").glob("*")):
        kind = read_text(supply / "type")
        if kind in ("Mains", "USB") and read_text(supply / "online") == "1":
            is_plugged = True
        is_own = kind == "Battery" and read_text(supply / "scope") != "Device"
        percent = read_number(supply / "capacity") if read_text(supply / "present") != "0" else None
        if is_own and percent is not None and 0 <= percent <= 100:
            levels.append(percent)
            states.append(read_text(supply / "status") or "Unknown")
    if not levels:
        return None
    # A driver that does not know leaves the word to the power supply.
    discharging = "Discharging" in states or (set(states) == {"Unknown"} and not is_plugged)
    return Battery(sum(levels) / len(levels), discharging)


def hottest_celsius(sysfs: Path = SYSFS) -> float | None:
    """Read the hottest thermal zone; None where the system does not say."""
    zones = [read_number(path) for path in sorted((sysfs / "class/thermal").glob("thermal_zone*/temp"))]
    # In thousandths of a degree; sensors that are off say nonsense.
    degrees = [value / 1e3 for value in zones if value is not None and -40e3 < value < 150e3]
    return max(degrees) if degrees else None


class Pauses:
    """When to wait, and waiting.

    Args:
        below_battery: Wait while the battery is below so many percent and discharging; None for never.
        above_celsius: Wait while the hottest zone is above that; None for never.
        sysfs: Where the kernel's files lie.
        note: Told why training waits and that it goes on.
        clock: For tests.
        sleep: For tests.
    """

    def __init__(
        self,
        below_battery: float | None = None,
        above_celsius: float | None = None,
        *,
        sysfs: Path = SYSFS,
        note: Callable[[str], None] = lambda line: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._below_battery, self._above_celsius = below_battery, above_celsius
        self._sysfs, self._note, self._clock, self._sleep = sysfs, note, clock, sleep
        self._looked = -math.inf

    def missing(self) -> list[str]:
        """Name the limits that were set and that this machine has no files for."""
        limits = []
        if self._below_battery is not None and read_battery(self._sysfs) is None:
            limits.append("--pause-below-battery (no battery)")
        if self._above_celsius is not None and hottest_celsius(self._sysfs) is None:
            limits.append("--pause-above-celsius (no thermal zone)")
        return limits

    def wait(self, before: Callable[[], None] = lambda: None) -> None:
        """Return at once, or when battery and temperature allow to go on.

        Args:
            before: Called once if there is to be a wait: a battery may end while it lasts.
        """
        now = self._clock()
        if now - self._looked < _LOOK_EVERY_SECONDS:
            return
        self._looked = now
        reason = self._reason(waiting=False)
        if reason is None:
            return
        before()
        self._note(f"training waits: {reason}")
        while (current := self._reason(waiting=True)) is not None:
            if current.split(",")[0] != reason.split(",")[0]:
                self._note(f"training waits: {current}")
            reason = current
            self._sleep(_WAIT_SECONDS)
        self._looked = self._clock()
        self._note(f"training goes on after {self._looked - now:.0f} s")

    def _reason(self, *, waiting: bool) -> str | None:
        """Say why to wait; while waiting, limits are stricter."""
        if self._below_battery is not None:
            battery = read_battery(self._sysfs)
            limit = self._below_battery + (BATTERY_MARGIN_PERCENT if waiting else 0.0)
            if battery is not None and battery.is_discharging and battery.percent < limit:
                until = self._below_battery + BATTERY_MARGIN_PERCENT
                return (
                    f"the battery is low, {battery.percent:.0f} % and discharging; "
                    f"goes on at {until:.0f} % or plugged in"
                )
        if self._above_celsius is not None:
            celsius = hottest_celsius(self._sysfs)
            margin = TEMPERATURE_MARGIN_CELSIUS if waiting else 0.0
            if celsius is not None and celsius > self._above_celsius - margin:
                until = self._above_celsius - TEMPERATURE_MARGIN_CELSIUS
                return f"the machine is hot, {celsius:.0f} °C; goes on at {until:.0f} °C"
        return None
