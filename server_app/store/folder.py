"""Keep blobs as files in a folder."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from gkt_core.errors import StorageUnavailableError
from gkt_core.files import write_atomically

_logger = logging.getLogger("gkt.server")

# Files that are being received; no blob's name begins so.
INCOMING = ".incoming"


class BlobStore:
    """Shards, soft labels and models by name, in a local folder; names have ``/`` between parts."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, name: str, data: bytes) -> None:
        """Store whole or not at all; repeating it replaces."""
        write_atomically(self._path(name), data)

    @contextlib.contextmanager
    def incoming(self) -> Iterator[Path]:
        """A path for a new file that :meth:`put_file` may take; what is left there is removed."""
        # Beside the blobs: taking a file over is renaming it.
        path = self._root / INCOMING / f"{os.getpid()}.{threading.get_ident()}"
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def drop_incoming(self) -> None:
        """Remove what a killed server left of files that it received."""
        shutil.rmtree(self._root / INCOMING, ignore_errors=True)

    def put_file(self, name: str, path: Path) -> None:
        """Take over a file of :meth:`incoming`, whole or not at all; a crash of the machine may lose it."""
        target = self._path(name)
        try:
            path.replace(target)
        except FileNotFoundError:
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)

    def make_durable(self, names: Iterable[str]) -> list[str]:
        """Let blobs of :meth:`put_file` survive a crash of the machine; return those that one has taken."""
        lost, folders = [], set()
        for name in names:
            path = self._path(name)
            try:
                # What a crash took of a file is its end: names and sizes reach the disk after the bytes.
                if _sync(path) == 0:
                    raise FileNotFoundError(name)
            except FileNotFoundError:
                lost.append(name)
            else:
                folders.add(path.parent)
        for folder in folders:
            _sync(folder)
        return lost

    def local_path(self, name: str) -> Path:
        """A file with this content, for reading and memory-mapping.

        Raises:
            FileNotFoundError: There is no such blob.
        """
        path = self._path(name)
        try:
            exists = path.is_file()
        except OSError:
            # A name that no file can have, such as one that is too long.
            exists = False
        if not exists:
            raise FileNotFoundError(name)
        return path

    def opened(self, name: str) -> tuple[BinaryIO, int]:
        """The bytes of a blob as a stream to close, of which no copy is kept, and how many there are.

        Raises:
            FileNotFoundError: There is no such blob.
        """
        stream = self.local_path(name).open("rb")
        return stream, os.fstat(stream.fileno()).st_size

    def names(self) -> list[str]:
        """Names of all blobs, sorted."""
        below = (path for path in self._root.rglob("*") if path.is_file())
        names = (path.relative_to(self._root).parts for path in below)
        return sorted("/".join(parts) for parts in names if not any(part.startswith(".") for part in parts))

    def drop_copy(self, name: str) -> None:
        """Remove the copy that :meth:`local_path` keeps of a blob that is stored elsewhere; here is none."""

    def delete(self, name: str) -> None:
        """Forget one blob; there may be none."""
        path = self._path(name)
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            # Empty by now, unless other devices still need theirs.
            path.parent.rmdir()

    def names_of(self, client_id: str) -> list[str]:
        """Names of all blobs that are of one device, by a part of their names; those of copies too."""
        below = (path for path in self._root.rglob("*") if path.is_file())
        return sorted(
            "/".join(parts) for path in below if is_of(client_id, parts := path.relative_to(self._root).parts)
        )

    def delete_below(self, prefix: str) -> None:
        """Forget all blobs whose names begin with ``prefix/``."""
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


def is_of(client_id: str, parts: Sequence[str]) -> bool:
    """Whether a name is of this device: a folder or a file is called like it."""
    *folders, file = parts
    return client_id in folders or file.removesuffix(".sha256") == f"{client_id}.safetensors"


def drop_blobs(blobs: BlobStore, names: Iterable[str]) -> None:
    """Forget blobs that nothing refers to; where the store does not answer, the end of the round does."""
    for name in names:
        try:
            blobs.delete(name)
        except (OSError, StorageUnavailableError) as error:
            _logger.warning("%s is left where it is for now: %s", name, error)


def _sync(path: Path) -> int:
    """Wait for the disk; return the size."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)
