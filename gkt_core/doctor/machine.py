"""Look at the machine: how threads wait, and what the clock says."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from gkt_core.doctor.findings import Finding, advice, fine, wrong
from gkt_core.doctor.options import DoctorOptions
from gkt_core.version import __file__ as installed_file

_CONTAINER_CPUS = Path("/sys/fs/cgroup/cpu.max")
# More than a clock that is kept right is off, and less than certificates and links mind.
CLOCK_SECONDS = 120.0
_SPINS = 100_000
_DAY = 86400.0
# As long before its end a certificate is somebody's next task.
_SOON_DAYS = 14
_SET_CLOCK = "set the clock, and keep it right: timedatectl set-ntp true"


def threads(_: DoctorOptions) -> Iterator[Finding]:
    """Look at what the environment tells OpenMP, which PyTorch and ONNX Runtime compute with."""
    yield from judged_threads(os.environ, num_cores(), container_cpus())


def judged_threads(environment: Mapping[str, str], cores: int, cpus: float) -> Iterator[Finding]:
    """Judge the number of threads, and how they wait.

    Args:
        environment: Of the process.
        cores: Those that it may run on.
        cpus: How many of them its container may use up; infinite without a limit.
    """
    troubles = [*_number(environment.get("OMP_NUM_THREADS", ""), cores, cpus), *_waiting(environment)]
    yield from troubles
    if not troubles:
        wanted = environment.get("OMP_NUM_THREADS") or f"all {cores} cores"
        yield fine(f"threads: {wanted}; they sleep while they wait")


def _number(wanted: str, cores: int, cpus: float) -> Iterator[Finding]:
    first = wanted.split(",", maxsplit=1)[0].strip()
    if wanted and not (first.isdecimal() and int(first)):
        yield wrong(
            f"OMP_NUM_THREADS is {wanted[:40]!r}, expected a number of threads",
            "unset it, or give one from 1",
        )
    elif first and int(first) > cores:
        yield advice(
            f"OMP_NUM_THREADS is {first}, there are {cores} cores: threads wait for each other",
            f"export OMP_NUM_THREADS={cores}",
        )
    elif not first and cpus < cores:
        most = max(1, int(cpus))
        yield advice(
            f"this container may use {cpus:g} CPUs up and sees {cores}: as many threads wait for each other",
            f"export OMP_NUM_THREADS={most}, or give it more CPUs",
        )


def _waiting(environment: Mapping[str, str]) -> Iterator[Finding]:
    said = {
        "OMP_WAIT_POLICY": environment.get("OMP_WAIT_POLICY", "").strip().lower() == "active",
        "GOMP_SPINCOUNT": _is_more(environment.get("GOMP_SPINCOUNT", ""), _SPINS),
        "KMP_BLOCKTIME": _is_more(environment.get("KMP_BLOCKTIME", ""), 0),
    }
    for name in (name for name, spins in said.items() if spins):
        yield advice(
            f"{name} is {environment[name][:40]}: threads spin while they wait, and beside other work "
            "training is up to twenty times slower",
            f"unset {name}",
        )


def _is_more(text: str, limit: int) -> bool:
    text = text.strip().lower()
    return text.startswith("inf") or (text.isdecimal() and int(text) > limit)


def num_cores() -> int:
    """Count the cores that this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def container_cpus(limit: Path = _CONTAINER_CPUS) -> float:
    """Say how many CPUs a container may use up; infinite without a limit."""
    try:
        quota, period = limit.read_text(encoding="ascii").split()
        return int(quota) / int(period)
    except (OSError, ValueError):
        # No container of this kind, or "max".
        return float("inf")


def clock(options: DoctorOptions) -> Iterator[Finding]:
    """Compare the clock with the times of files; with a server's, the check of that does."""
    now, troubles = time.time(), []
    installed = Path(installed_file).stat().st_mtime
    if installed > now + CLOCK_SECONDS:
        text = f"the clock says {_date(now)}, gkt was installed on {_date(installed)}"
        troubles.append(wrong(f"{text}: it lags behind", _SET_CLOCK))
    for folder in options.folders:
        if folder.is_dir():
            troubles += _of_folder(folder, now)
    yield from troubles
    if not troubles:
        yield fine(f"the clock says {_date(now)}, and no file is from later")


def _of_folder(folder: Path, now: float) -> Iterator[Finding]:
    try:
        with tempfile.TemporaryFile(dir=folder) as stream:
            apart = os.fstat(stream.fileno()).st_mtime - time.time()
    except OSError:
        # Whether it can be written is looked at with the disk.
        apart = 0.0
    if abs(apart) > CLOCK_SECONDS:
        yield wrong(
            f"the disk of {folder} says {_date(now + apart)}, this machine {_date(now)}",
            f"{_SET_CLOCK}, on the machine that has the disk as well",
        )
        return
    late = [path for path in folder.iterdir() if path.lstat().st_mtime > now + CLOCK_SECONDS]
    if late:
        when = max(path.lstat().st_mtime for path in late)
        yield wrong(
            f"{late[0].name} in {folder} is of {_date(when)}, the clock says {_date(now)}: it lags "
            "behind, or was ahead",
            f"{_SET_CLOCK}; if it is right now, touch the files",
        )


def judged_end(seconds: float, whose: str, remedy: str) -> Finding:
    """Judge the time that a certificate has left."""
    if seconds <= 0:
        return wrong(f"{whose} ended {-seconds / _DAY:.0f} days ago", remedy)
    text = f"{whose} holds for {seconds / _DAY:.0f} more days"
    return advice(text, remedy) if seconds < _SOON_DAYS * _DAY else fine(text)


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
