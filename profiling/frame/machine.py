"""The machine that a measurement was made on, so that no number stands without it."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = (
    "gkt-edge",
    "torch",
    "onnxruntime-training-cpu",
    "onnxruntime",
    "onnx",
    "numpy",
    "fvcore",
    "gunicorn",
)
_UNKNOWN_CPU = "unknown"


def describe_machine() -> dict[str, Any]:
    """Describe processor, system and software; imports none of the packages it names.

    Returns:
        ``cpu_model``; ``num_cores`` that the machine has and ``num_usable_cores`` that this process may
        use, both counting hardware threads; ``system``; ``architecture``; ``python``; and ``packages``,
        versions by name of those that are installed.
    """
    return {
        "cpu_model": _cpu_model(),
        "num_cores": os.cpu_count() or 1,
        "num_usable_cores": num_usable_cores(),
        "system": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "packages": _package_versions(),
    }


def num_usable_cores() -> int:
    """Count the hardware threads that this process may use."""
    # A container may be pinned to fewer cores than the machine has; macOS and Windows cannot say.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_model() -> str:
    if platform.system() == "Darwin":
        name = _sysctl("machdep.cpu.brand_string")
    else:
        # Most ARM kernels leave "model name" out; there the board's name says more than "aarch64".
        name = next(iter(cpuinfo("model name")), "") or _text(Path("/proc/device-tree/model"))
    return name or platform.processor() or platform.machine() or _UNKNOWN_CPU


def _sysctl(name: str) -> str:
    try:
        done = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, check=True, timeout=5)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\x00 \n")
    except OSError:
        return ""


def cpuinfo(name: str, root: Path = Path("/")) -> list[str]:
    """What the kernel says of each core under this name, such as ``model name``; empty if it does not."""
    fields = (line.partition(":") for line in _text(root / "proc/cpuinfo").splitlines())
    return [value.strip() for key, _, value in fields if key.strip() == name]


def _package_versions() -> dict[str, str]:
    versions = {}
    for name in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions
