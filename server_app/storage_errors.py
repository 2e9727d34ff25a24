"""What is wrong with a storage that does not answer, in words, from the many errors that say so."""

from __future__ import annotations

import errno

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

# EFBIG is what a limit on file sizes gives.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def describe_storage_error(error: Exception) -> str:
    """One clause, without paths and statements: devices read it too.

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
    """An error for a log, without the advertisement that SQLAlchemy adds."""
    return (str(error).splitlines() or [type(error).__name__])[0]
