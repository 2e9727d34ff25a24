"""Writing files and folders whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import psutil
from filelock import BaseFileLock, FileLock, Timeout

from gkt_core.errors import DiskFullError, InputError

# No space, a quota, a file larger than this process may write.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_atomically(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Write a file so that a reader, or a restart, sees the old content or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # One name a thread: a web server may be sent the same file twice at once.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        # Windows would make two bytes of each line's end.
        flags |= getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(temporary, flags, mode), "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def full_disk_named(path: Path | None = None) -> Iterator[None]:
    """Let a disk that is full be an error that names ``path``, or the file that the system names.

    Raises:
        DiskFullError: Something could not be written for want of space.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise DiskFullError(
            f"cannot write {path or error.filename or 'a file'}: {error.strerror}: free some space or raise "
            "the limit, then give the same command again; what was saved before is still there"
        ) from error


def remove_leftovers(folder: Path) -> None:
    """Delete what processes that were killed were writing with :func:`write_atomically` below a folder.

    A process that runs keeps its files, also one that only has the number of the one that was killed: its
    own leftovers are few, and go another time.
    """
    for path in folder.rglob(".*.tmp"):
        pid = path.name.split(".")[-3]
        if path.name.count(".") >= 4 and pid.isdecimal() and not psutil.pid_exists(int(pid)):
            path.unlink(missing_ok=True)


class HeldLock:
    """A lock file that this process holds until it is closed, or the process ends however it may."""

    def __init__(self, lock: BaseFileLock) -> None:
        self._lock = lock

    def close(self) -> None:
        """Let another process have it; the file stays."""
        self._lock.release(force=True)

    def __enter__(self) -> HeldLock:
        """Hold it for a block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let it go."""
        self.close()


def try_to_lock(path: Path) -> HeldLock | None:
    """Take a lock file, as the system locks files; None where another process holds it.

    Raises:
        OSError: The file cannot be made.
    """
    # Whichever thread lets it go: a server is stopped from another than it was started from.
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return None
    return HeldLock(lock)


def lock_exclusively(path: Path, refusal: str) -> HeldLock:
    """Hold a lock file until it is closed, or the process ends however it may.

    Raises:
        InputError: Another process holds it; ``refusal`` is the message.
    """
    lock = try_to_lock(path)
    if lock is None:
        raise InputError(refusal)
    return lock


def check_new_folder(path: Path) -> None:
    """Refuse an output folder that already holds something.

    Raises:
        InputError: The path is a file or a folder that is not empty, or cannot be made.
    """
    try:
        if path.is_dir() and any(path.iterdir()):
            raise InputError(f"{path} already exists and is not empty: choose another --out or remove it")
        if path.exists() and not path.is_dir():
            raise InputError(f"{path} is a file, expected a new folder: choose another --out")
        # The folder is replaced in the end, and a shell that stands in it would stand in nothing.
        if path.resolve() == Path.cwd():
            raise InputError(f"{path} is the current folder, expected a new one: choose another --out")
        parent = path.absolute().parent
        while not parent.exists():
            parent = parent.parent
    except OSError as error:
        raise InputError(f"cannot use {path}: {error}: choose another --out") from error
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise InputError(f"cannot write below {parent}: choose another --out")


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Fill a folder under a temporary name; it takes its own name only when the block ends well.

    Raises:
        InputError: The path cannot become a new folder.
    """
    check_new_folder(path)
    # A name that renaming accepts also where the path ends in ".." or is a link to a folder.
    target = path.resolve()
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    made = [parent for parent in target.parents if not parent.exists()]
    try:
        try:
            temporary.mkdir(parents=True)
        except OSError as error:
            raise InputError(f"cannot make {target}: {error}: choose another --out") from error
        yield temporary
        try:
            if target.is_dir():
                target.rmdir()
            temporary.rename(target)
        except OSError as error:
            raise InputError(f"cannot replace {target}: {error}: choose another --out") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        # Folders above are left alone once they hold something: the new folder, or another command's.
        with contextlib.suppress(OSError):
            for parent in made:
                parent.rmdir()
