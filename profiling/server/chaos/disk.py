"""A disk of its own for a run, which can be filled to the last byte: a tmpfs, where one may be mounted."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

_MEGABYTES = 160
_FILLER = "filler"


class OwnDisk:
    """A folder that lies on a disk of its own.

    Args:
        folder: Where it is mounted.
    """

    def __init__(self, folder: Path) -> None:
        self._filler = folder / _FILLER

    def fill(self) -> None:
        """Take all that is left."""
        with self._filler.open("ab", buffering=0) as stream:
            for num_bytes in (1 << 20, 4096, 1):
                with contextlib.suppress(OSError):
                    while True:
                        stream.write(bytes(num_bytes))

    def empty(self) -> None:
        """Give it back."""
        self._filler.unlink(missing_ok=True)


@contextlib.contextmanager
def own_disk(folder: Path) -> Iterator[OwnDisk | None]:
    """Mount one on a new folder while the block runs; None where this process may not."""
    folder.mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        command = ["mount", "-t", "tmpfs", "-o", f"size={_MEGABYTES}m", "tmpfs", str(folder)]
        try:
            is_mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
        except OSError:
            is_mounted = False
        if is_mounted:
            unmount = ["umount", "-l", str(folder)]
            stack.callback(subprocess.run, unmount, capture_output=True, check=False)
        yield OwnDisk(folder) if is_mounted else None
