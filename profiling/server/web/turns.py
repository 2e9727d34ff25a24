"""Bytes a CPU-second of several servers that take the same bodies in turns.

Files are removed after each turn: writing to new files costs more than overwriting old ones. CPU time is that
of the serving processes, kernel time included; what the sender costs is not in it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiling.frame import Announce
from profiling.server.web.target import Upload


@dataclass(frozen=True, slots=True)
class Candidate:
    """One that takes bodies.

    Attributes:
        take: Takes the bodies of a turn.
        cpu_seconds: What its processes have spent so far.
        stored: Below it lie the files of a turn.
    """

    take: Callable[[Sequence[Upload]], None]
    cpu_seconds: Callable[[], float]
    stored: Path


def bytes_per_cpu_second(
    candidates: Mapping[str, Candidate],
    num_turns: int,
    uploads_of: Callable[[int], Sequence[Upload]],
    announce: Announce,
) -> dict[str, dict[str, Any]]:
    """Let each take the bodies of every turn, after one turn to warm up.

    Args:
        candidates: By name.
        num_turns: That count.
        uploads_of: The bodies of a turn.
        announce: Told what happens now.

    Returns:
        For each the ``median`` of its turns and their ``spread``, lowest and highest.
    """
    rates: dict[str, list[float]] = {name: [] for name in candidates}
    names = list(candidates)
    for turn in range(num_turns + 1):
        announce(f"turn {turn} of {num_turns}")
        uploads = uploads_of(turn)
        # Another one begins each time: whatever the machine does meanwhile befalls all.
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            candidate = candidates[name]
            begin = candidate.cpu_seconds()
            candidate.take(uploads)
            spent = max(candidate.cpu_seconds() - begin, 0.01)
            remove_files(candidate.stored)
            if turn > 0:
                rates[name].append(sum(len(upload.body) for upload in uploads) / spent)
    return {
        name: {"median": statistics.median(values), "spread": [min(values), max(values)]}
        for name, values in rates.items()
    }


def remove_files(folder: Path) -> None:
    """Remove stored bodies, so that each turn writes new files to a disk as full as before."""
    for path in folder.rglob("*"):
        if path.is_file():
            path.unlink()
