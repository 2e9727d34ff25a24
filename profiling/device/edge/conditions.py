"""What the kernel says about the processor: governor, frequency, temperature, energy. Linux; else silent."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.machine.pauses import hottest_celsius
from edge_runtime.machine.sysfs import read_number, read_text
from profiling.frame.machine import cpuinfo

_ROOT = Path("/")


@dataclass(frozen=True, slots=True)
class Conditions:
    """The processor's state at one moment; None where the system does not say.

    Attributes:
        governor: Of the first core, such as ``powersave``.
        frequency_mhz: Of the fastest core now.
        temperature_celsius: Of the hottest thermal zone now.
    """

    governor: str | None
    frequency_mhz: float | None
    temperature_celsius: float | None


def read_conditions(root: Path = _ROOT) -> Conditions:
    """Read the processor's state.

    Args:
        root: Where ``sys`` and ``proc`` lie; for tests.
    """
    cores = root / "sys/devices/system/cpu"
    frequencies = [read_number(path) for path in sorted(cores.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))]
    megahertz = [value / 1e3 for value in frequencies if value is not None] or _proc_frequencies(root)
    return Conditions(
        governor=read_text(cores / "cpu0/cpufreq/scaling_governor"),
        frequency_mhz=max(megahertz) if megahertz else None,
        temperature_celsius=hottest_celsius(root / "sys"),
    )


class EnergyMeter:
    """The energy counters of Intel's and AMD's RAPL, one a package, whatever runs on it included.

    Args:
        root: Where ``sys`` lies; for tests.
    """

    def __init__(self, root: Path = _ROOT) -> None:
        # Packages are intel-rapl:0, :1; what lies below them (cores, memory) is part of them.
        self._packages = sorted((root / "sys/class/powercap").glob("intel-rapl:[0-9]"))
        self._ranges = [read_number(package / "max_energy_range_uj") for package in self._packages]
        self._begin = self._read()

    @property
    def is_readable(self) -> bool:
        """Whether the counters exist and this user may read them (root only on most systems)."""
        return bool(self._packages) and None not in self._begin

    def joules(self) -> float | None:
        """Energy since this meter was made; None if it cannot be read."""
        total = 0.0
        for begin, end, largest in zip(self._begin, self._read(), self._ranges, strict=True):
            if begin is None or end is None or (end < begin and largest is None):
                return None
            # A counter begins again at 0 when it is full, every minute or so under load.
            total += end - begin if end >= begin else end + (largest or 0.0) - begin
        return total / 1e6 if self._packages else None

    def _read(self) -> list[float | None]:
        return [read_number(package / "energy_uj") for package in self._packages]


def _proc_frequencies(root: Path) -> list[float]:
    megahertz = []
    for value in cpuinfo("cpu MHz", root):
        with contextlib.suppress(ValueError):
            megahertz.append(float(value))
    return megahertz
