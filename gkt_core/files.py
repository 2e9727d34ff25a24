"""Writing files and folders whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import psutil
from filelock import BaseFileLock, FileLock, Timeout

from gkt_core.errors import DiskFullError, InputError, ResourceError

# No space, a quota, a file larger than this process may write.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# A path that cannot be what it was given for, or is not allowed.
_REFUSED = (
    errno.EACCES,
    errno.EBUSY,
    errno.EEXIST,
    errno.EINVAL,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENODEV,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.ENOTEMPTY,
    errno.ENXIO,
    errno.EPERM,
    errno.EROFS,
)


def write_atomically(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Write a file so that a reader, or a restart, sees the old content or the new one."""
    with writing_atomically(path, mode=mode) as stream:
        stream.write(data)


@contextlib.contextmanager
def writing_atomically(path: Path, *, mode: int = 0o666) -> Iterator[BinaryIO]:
    """Give a stream that becomes the file when the block ends, and nothing when it fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # One name a thread: a web server may be sent the same file twice at once.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        # Windows would make two bytes of each line's end.
        flags |= getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(temporary, flags, mode), "wb") as stream:
            yield stream
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


@contextlib.contextmanager
def file_trouble_named() -> Iterator[None]:
    """Let every file that cannot be read or written be an error that names it, as a command ends with it.

    Raises:
        DiskFullError: There is no space.
        ResourceError: The disk, or what stands for it, fails.
        InputError: The path is not allowed, not there, or something else than expected.
    """
    try:
        with full_disk_named():
            yield
    except BrokenPipeError:
        raise
    except OSError as error:
        path = error.filename2 or error.filename
        if error.errno == errno.EIO:
            raise ResourceError(
                f"cannot read or write {path or 'a file'}: {error.strerror}: look after the disk, then give "
                "the same command again; what was saved before is still there"
            ) from error
        if path is None or error.errno not in _REFUSED:
            raise
        raise InputError(
            f"cannot use {os.fsdecode(path)}: {error.strerror}: choose another place, or let this user read "
            "and write there"
        ) from error


def existing_above(path: Path) -> Path:
    """Give a path, or the nearest above it that is there: on its disk it would be written."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def check_writable(path: Path, flag: str, *, is_folder: bool) -> None:
    """Find out before the work whether a file or folder can be written, by writing beside it.

    Args:
        path: Where something is to be written; folders above it may be missing.
        flag: The option that gave it, for the message.
        is_folder: Whether it is to be a folder.

    Raises:
        InputError: It cannot be written, or is a folder instead of a file or a file instead of a folder.
    """
    try:
        if os.path.lexists(path) and not path.exists():
            raise InputError(f"{path} is a link to what is not there: choose another {flag}")
        if path.exists() and path.is_dir() != is_folder:
            is_what, wanted = ("a file", "a folder") if is_folder else ("a folder", "a file")
            raise InputError(f"{path} is {is_what}, expected {wanted}: choose another {flag}")
        if path.exists() and not is_folder:
            path.open("ab").close()
            return
        place = existing_above(path)
        if not place.is_dir():
            raise InputError(f"cannot write {path}: {place} is a file: choose another {flag}")
        # Rights alone say too little: of root, of folders such as /proc, of media that are read only.
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        if error.errno in _FULL:
            raise
        raise InputError(f"cannot write {path}: {error.strerror}: choose another {flag}") from error


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


def check_new_folder(path: Path, flag: str = "--out") -> None:
    """Refuse an output folder that already holds something; ``flag`` is the option that names it.

    Raises:
        InputError: The path is a file or a folder that is not empty, or cannot be made.
    """
    check_writable(path, flag, is_folder=True)
    try:
        if path.is_dir() and any(path.iterdir()):
            raise InputError(f"{path} already exists and is not empty: choose another {flag} or remove it")
        # The folder is replaced in the end, and a shell that stands in it would stand in nothing.
        if path.resolve() == Path.cwd():
            raise InputError(f"{path} is the current folder, expected a new one: choose another {flag}")
    except OSError as error:
        raise InputError(f"cannot use {path}: {error.strerror}: choose another {flag}") from error


@contextlib.contextmanager
def new_folder(path: Path, flag: str = "--out") -> Iterator[Path]:
    """Fill a folder under a temporary name; it takes its own name only when the block ends well.

    Args:
        path: The folder.
        flag: The option that names it, for messages.

    Raises:
        InputError: The path cannot become a new folder.
    """
    check_new_folder(path, flag)
    # A name that renaming accepts also where the path ends in ".." or is a link to a folder.
    target = path.resolve()
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    made = [parent for parent in target.parents if not parent.exists()]
    try:
        try:
            temporary.mkdir(parents=True)
        except OSError as error:
            raise InputError(f"cannot make {target}: {error.strerror}: choose another {flag}") from error
        yield temporary
        try:
            if target.is_dir():
                target.rmdir()
            temporary.rename(target)
        except OSError as error:
            raise InputError(f"cannot replace {target}: {error.strerror}: choose another {flag}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        # Folders above are left alone once they hold something: the new folder, or another command's.
        with contextlib.suppress(OSError):
            for parent in made:
                parent.rmdir()
