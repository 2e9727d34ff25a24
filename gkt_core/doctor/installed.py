"""Look at what is installed: Python, packages that exclude each other, and what it is complete for."""

from __future__ import annotations

import contextlib
import importlib.util
import platform
import re
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from gkt_core.bundle.onnx_runtime import DISTRIBUTIONS, check_one_distribution, installed_versions
from gkt_core.cli import name_clashes
from gkt_core.doctor.findings import Finding, advice, fine, skipped, wrong
from gkt_core.doctor.options import DoctorOptions

# Of requires-python.
_OLDEST, _NEWEST = (3, 11), (3, 14)
# Where onnxruntime-training-cpu has a wheel: up to this Python, on these systems and processors.
_NEWEST_TRAINING = (3, 12)
_TRAINS_ON = {("linux", "x86_64"), ("win32", "AMD64"), ("darwin", "x86_64"), ("darwin", "arm64")}
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+).*extra == ['\"]([\w-]+)['\"]")
# By extra, whom it makes of a machine.
_ROLES = {
    "edge": "a device",
    "data": "photos",
    "export": "exporting",
    "server": "a server",
    "profile": "measurements",
}


def python_version(_: DoctorOptions) -> Iterator[Finding]:
    """Look at Python, and whether this machine has wheels for it."""
    kind = sys.implementation.name, platform.libc_ver()[0]
    yield from judged_python(sys.version_info[:2], sys.platform, platform.machine(), sys.maxsize, *kind)


def judged_python(
    number: tuple[int, int], system: str, machine: str, largest: int, implementation: str, libc: str
) -> Iterator[Finding]:
    """Judge a Python.

    Args:
        number: Its version, (3, 12).
        system: As ``sys.platform``.
        machine: As ``platform.machine()``.
        largest: As ``sys.maxsize``.
        implementation: ``cpython``, ``pypy``.
        libc: The C library; empty where it is not GNU's.
    """
    name = f"{implementation} {'.'.join(map(str, number))} on {system}, {machine}"
    span = f"{'.'.join(map(str, _OLDEST))} to {'.'.join(map(str, _NEWEST))}"
    if not _OLDEST <= number <= _NEWEST:
        yield wrong(f"{name}: gkt runs on Python {span}", f"make an environment with Python {span}")
    elif implementation != "cpython":
        yield wrong(f"{name}: ONNX Runtime and PyTorch have wheels for CPython alone", "take CPython")
    elif largest <= 2**32:
        yield wrong(
            f"{name}, of 32 bits: ONNX Runtime and PyTorch have no wheels for it",
            "take a system of 64 bits; a device may also be Node or a browser (docs/mobile.md)",
        )
    elif system == "linux" and not libc:
        yield wrong(
            f"{name}, with musl in place of the GNU C library (Alpine): ONNX Runtime and PyTorch have no "
            "wheels for it",
            "take a system or an image with the GNU C library, such as python:3.12-slim",
        )
    elif number > _NEWEST_TRAINING or (system, machine) not in _TRAINS_ON:
        yield fine(
            f"{name}: ONNX Runtime has wheels, its training build has none: the engine is the portable one, "
            "and bundles for it need gkt export --engine portable or both"
        )
    else:
        yield fine(f"{name}: ONNX Runtime has wheels, its training build too")


def packages(_: DoctorOptions) -> Iterator[Finding]:
    """Look for packages that exclude each other, and for what is half installed."""
    # Refuses two builds side by side, with the remedy.
    check_one_distribution()
    installed = installed_versions()
    for name, number in installed.items():
        yield from _whole(name, number)
    yield from judged_torch(_version("torch"), _version("torchvision"))
    for clash in name_clashes():
        text, remedy = clash.split(": ", 1)
        yield wrong(text, remedy)
    yield from _roles()


def _whole(name: str, number: str) -> Iterator[Finding]:
    """Judge the files of an ONNX Runtime: pip takes some away with another build that had the same."""
    spec = importlib.util.find_spec("onnxruntime")
    folder = None if spec is None or spec.origin is None else Path(spec.origin).parent
    lacking = [
        part
        for part in ("capi", "training/api")
        if (part == "capi" or "training" in name) and (folder is None or not (folder / part).is_dir())
    ]
    if lacking:
        yield wrong(
            f"{name} {number} lacks {' and '.join(lacking)}: another build was installed over it or removed",
            f"pip install --force-reinstall --no-deps {name}=={number}",
        )
    else:
        yield fine(f"{name} {number} and no other ONNX Runtime")


def judged_torch(torch: str, torchvision: str) -> Iterator[Finding]:
    """Judge the builds of two packages that must come from one place, by their versions."""
    builds = [number.partition("+")[2] for number in (torch, torchvision)]
    if torch and torchvision and builds[0] != builds[1]:
        yield wrong(
            f"torch {torch} and torchvision {torchvision} come from different places: importing torchvision "
            "fails (operator torchvision::nms does not exist)",
            "pip uninstall torch torchvision, then install both from the same index",
        )


def _roles() -> Iterator[Finding]:
    """Say what an installation is complete for, and where little lacks."""
    try:
        lines = requires("gkt-edge") or []
    except PackageNotFoundError:
        yield skipped("gkt-edge is not installed, but run from its source: what belongs to it is not known")
        return
    needed: dict[str, set[str]] = {}
    for line in lines:
        if match := _REQUIREMENT.match(line):
            # Whichever build of ONNX Runtime is as good as the one of this machine's marker.
            name = "onnxruntime" if match[1] in DISTRIBUTIONS else match[1]
            needed.setdefault(match[2], set()).add(name)
    complete = []
    for extra, role in _ROLES.items():
        names = needed.get(extra, set())
        lacking = sorted(name for name in names if not _is_installed(name))
        if names and not lacking:
            complete.append(role)
        elif len(lacking) * 2 < len(names):
            yield advice(
                f"of what {role} needs, {', '.join(lacking)} lack{'s' * (len(lacking) == 1)}",
                f"if this is to be for {role}: pip install 'gkt-edge[{extra}]'",
            )
    if complete:
        yield fine(f"complete for {', '.join(complete)}")
    else:
        yield advice(
            "complete for nothing yet",
            "pip install 'gkt-edge[edge]' on a device, 'gkt-edge[server]' on a server",
        )


def _is_installed(name: str) -> bool:
    return bool(installed_versions() if name == "onnxruntime" else _version(name))


def _version(name: str) -> str:
    with contextlib.suppress(PackageNotFoundError):
        return version(name)
    return ""
