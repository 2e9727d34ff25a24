"""Say in words what is wrong with a storage that does not answer, and wait for it."""

from __future__ import annotations

import errno
import logging
import time
from dataclasses import dataclass

from sqlalchemy import exc

from gkt_core.errors import StorageUnavailableError

# What a storage raises that a person can mend while everybody waits.
STORAGE_ERRORS = (
    OSError,
    exc.OperationalError,
    exc.InterfaceError,
    exc.TimeoutError,
    StorageUnavailableError,
)

_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.5, 30.0

# EFBIG is what a limit on file sizes gives.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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
        case OSError() if error.errno in _FULL:
            return "the server's disk is full"
        case OSError():
            return f"the server's disk does not answer ({type(error).__name__})"
        case exc.TimeoutError():
            return "the server's database connections are all in use"
        case StorageUnavailableError():
            # Of fsspec's backends, whose words may hold an address, but no secret.
            return "the server's blob store does not answer"
    words = str(getattr(error, "orig", error)).lower()
    if "full" in words:
        return "the server's disk is full"
    if "locked" in words or "busy" in words:
        return "the server's database is locked by another process"
    return "the server's database does not answer"


def first_line(error: Exception) -> str:
    """Shorten an error for a log: SQLAlchemy adds lines of advertisement."""
    return (str(error).splitlines() or [type(error).__name__])[0]
