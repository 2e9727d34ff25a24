"""Say in words what is wrong with a storage that does not answer, and wait for it."""

from __future__ import annotations

import contextlib
import errno
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import exc

from gkt_core.errors import DamagedStorageError, DiskFullError, GKTError, StorageUnavailableError

# What a storage raises that a person can mend while everybody waits.
STORAGE_ERRORS = (
    OSError,
    exc.OperationalError,
    exc.InterfaceError,
    exc.TimeoutError,
    StorageUnavailableError,
)

_logger = logging.getLogger("gkt.server")
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.5, 30.0

# EFBIG is what a limit on file sizes gives.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Of SQLite and PostgreSQL, in lower case.
_DAMAGE_WORDS = ("malformed", "not a database", "could not decode", "invalid page in block", "data_corrupted")
_DAMAGED = "the server's database is damaged"
_DISK_FULL = "the server's disk is full"
_LOCKED = "the server's database is locked by another process"


@dataclass(slots=True)
class Patience:
    """Longer and longer waits for a storage, short ones again after a time without trouble."""

    _wait: float = _FIRST_WAIT_SECONDS
    _troubled_at: float = float("-inf")

    def wait(self, error: Exception, log: logging.Logger) -> None:
        """Say what is wrong, and sleep.

        Args:
            error: One of :data:`STORAGE_ERRORS`.
            log: Where it is said.

        Raises:
            FileNotFoundError: It is one: waiting does not bring back a shard that is lost.
        """
        if isinstance(error, FileNotFoundError):
            raise error
        if time.monotonic() - self._troubled_at > 2 * _LONGEST_WAIT_SECONDS:
            # The trouble before is over: a week of short ones must not add up.
            self._wait = _FIRST_WAIT_SECONDS
        what = describe_storage_error(error)
        log.warning("%s: next try in %.1f s (%s)", what, self._wait, first_line(error))
        time.sleep(self._wait)
        self._wait = min(2 * self._wait, _LONGEST_WAIT_SECONDS)
        self._troubled_at = time.monotonic()


def describe_storage_error(error: Exception) -> str:
    """Describe the trouble in one clause, without paths and statements: devices read it too.

    Args:
        error: One of :data:`STORAGE_ERRORS`.
    """
    match error:
        case DamagedStorageError():
            return _DAMAGED
        case OSError() if error.errno in _FULL:
            return _DISK_FULL
        case OSError():
            return f"the server's disk does not answer ({type(error).__name__})"
        case exc.TimeoutError():
            return "the server's database connections are all in use"
        case StorageUnavailableError():
            # Of fsspec's backends, whose words may hold an address, but no secret.
            return "the server's blob store does not answer"
    words = str(getattr(error, "orig", error)).lower()
    if "full" in words:
        return _DISK_FULL
    if "locked" in words or "busy" in words:
        return _LOCKED
    return "the server's database does not answer"


@contextlib.contextmanager
def storage_named() -> Iterator[None]:
    """Let what a database raises be an error with a remedy, as a command ends with it.

    Raises:
        DiskFullError: Nothing can be written.
        StorageUnavailableError: The database does not answer.
    """
    try:
        yield
    except exc.SQLAlchemyError as error:
        if not isinstance(error, STORAGE_ERRORS):
            raise
        raise named(error) from error


def named(error: Exception) -> GKTError:
    """Make an error with a remedy of one of :data:`STORAGE_ERRORS`."""
    what = describe_storage_error(error)
    if what == _DISK_FULL:
        return DiskFullError(
            f"{what}: free some space, then give the same command again; what was saved before is still there"
        )
    return StorageUnavailableError(f"{what} ({first_line(error)}): give the same command again later")


def is_damage(error: BaseException | None) -> bool:
    """Whether a driver's error says that the database's pages or texts are not what was written."""
    words = str(error).lower()
    return any(each in words for each in _DAMAGE_WORDS)


def damaged(error: BaseException) -> DamagedStorageError:
    """Say what is to be done about it: nothing that a device or another try could mend."""
    _logger.error("%s: %s", _DAMAGED, error)
    return DamagedStorageError(
        f"{_DAMAGED}: whoever runs the server stops it, restores a backup of the database and starts it "
        "again; devices wait"
    )


def is_passing(error: Exception) -> bool:
    """Whether a database is full, or held by somebody: nothing is wrong with it."""
    return isinstance(error, exc.OperationalError) and describe_storage_error(error) in (_DISK_FULL, _LOCKED)


def first_line(error: Exception) -> str:
    """Shorten an error for a log: SQLAlchemy adds lines of advertisement."""
    return (str(error).splitlines() or [type(error).__name__])[0]
