"""Blobs as files in a folder."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from gkt_core.files import write_atomically


class FolderBlobStore:
    """A :class:`server_app.store.base.BlobStore` in a local folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, name: str, data: bytes) -> None:
        """Store whole or not at all."""
        write_atomically(self._path(name), data)

    def local_path(self, name: str) -> Path:
        """The file itself."""
        path = self._path(name)
        try:
            found = path.is_file()
        except OSError:
            # A name that no file can have, such as one that is too long.
            found = False
        if not found:
            raise FileNotFoundError(name)
        return path

    def drop_copy(self, name: str) -> None:
        """Nothing to do: there is the file itself only."""

    def delete(self, name: str) -> None:
        """Remove one file."""
        path = self._path(name)
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            # Empty by now, unless other devices still need theirs.
            path.parent.rmdir()

    def delete_below(self, prefix: str) -> None:
        """Remove a folder of blobs."""
        shutil.rmtree(self._path(prefix), ignore_errors=True)

    @staticmethod
    def check_name(name: str) -> list[str]:
        """The parts of a name.

        Raises:
            ValueError: A blob cannot have this name.
        """
        parts = name.split("/")
        if not all(parts) or any(part in (".", "..") or "\\" in part or "\0" in part for part in parts):
            raise ValueError(f"{name!r} is no blob name")
        return parts

    def _path(self, name: str) -> Path:
        return self._root.joinpath(*self.check_name(name))
