"""What a device installs, in bytes of files, by package."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

DISTRIBUTION = "gkt-edge"
_OWN_PACKAGES = ("gkt_core", "edge_export", "edge_runtime", "server_app", "profiling")


def install_sizes(extra: str) -> dict[str, int] | None:
    """Sizes of gkt and of all installed packages that one of its extras needs, by name, largest first.

    Args:
        extra: ``edge`` and so on.

    Returns:
        Bytes by package; what is declared and not installed is left out. None if no metadata say.
    """
    try:
        from packaging.requirements import Requirement  # noqa: PLC0415 - comes with every ONNX Runtime
        from packaging.utils import canonicalize_name  # noqa: PLC0415
    except ModuleNotFoundError:
        return None
    sizes: dict[str, int] = {}
    waiting: list[tuple[str, frozenset[str]]] = [(DISTRIBUTION, frozenset({extra}))]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            continue
        sizes[name] = _size_of(installed) if name != DISTRIBUTION else _own_size()
        for text in installed.requires or ():
            requirement = Requirement(text)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": each}) for each in (*extras, "")):
                waiting.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))
    return dict(sorted(sizes.items(), key=lambda item: -item[1])) or None


def _size_of(installed: Distribution) -> int:
    files = {Path(str(file.locate())) for file in installed.files or ()}
    return _total(files)


def _own_size() -> int:
    """Weigh our packages as they lie here: an editable install has no list of files."""
    total = 0
    for name in _OWN_PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            total += _total(Path(spec.origin).parent.rglob("*"))
    return total


def _total(paths: Iterable[Path]) -> int:
    total = 0
    for path in paths:
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:
            continue
    return total
