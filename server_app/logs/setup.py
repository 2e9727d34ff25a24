"""Decide where the log of ``gkt serve`` goes: stderr, one line an event, and a file that is rotated by size.

One process writes: what the trainer says comes to the server through a pipe (:mod:`server_app.logs.piped`),
so that no line is torn and no two processes rotate one file.
"""

from __future__ import annotations

import contextlib
import io
import logging
import logging.handlers
import os
import sys
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from gkt_core.config.dataclass_options import option
from gkt_core.errors import InputError
from server_app.logs.formats import FORMATS, PLAIN, event_of, formatter

# Requests; and what the trainer says beside what it wants a person to look at.
REQUESTS, TRAINER = "gkt.requests", "gkt.trainer"
# The same refusal again and again is one line in so many seconds: devices repeat what they ask.
REPEAT_SECONDS = 60.0
# A page that is open asks every few seconds; that somebody looks is told of once in so many seconds.
PAGE_VIEW, PAGE_SECONDS = "page.view", 600.0
_MOST_KEPT = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """How a server writes its log.

    Attributes:
        log_format: Of each line: plain for a person, json for what collects logs (journald, Docker, Loki).
        log_file: File that gets every event and every request as well, readable by you alone; what goes to
            stderr follows -v and -q.
        log_file_mb: Size at which that file becomes FILE.1, FILE.1 becomes FILE.2, and so on.
        log_files: How many of these are kept.
    """

    log_format: str = option(PLAIN, choices=FORMATS, group="Log")
    log_file: Path | None = option(None, shown_default="stderr alone", group="Log")
    log_file_mb: int = option(20, low=1, high=100_000, unit="MB", group="Log")
    log_files: int = option(5, low=1, high=1000, group="Log")


@contextlib.contextmanager
def logging_to(options: LogOptions, level: int | None = None) -> Iterator[None]:
    """Let everything that this process logs go where the options say, while the block runs.

    Args:
        options: Where and how.
        level: Of -v, -vv and -q; None where none was given.

    Raises:
        InputError: The file cannot be written.
    """
    handlers: list[logging.Handler] = [_stderr(options, level)]
    if options.log_file is not None:
        handlers.append(_file(options, options.log_file, level))
    root = logging.getLogger()
    before, level_before = root.handlers[:], root.level
    root.handlers[:] = handlers
    root.setLevel(logging.DEBUG if level == logging.DEBUG else logging.INFO)
    try:
        yield
    finally:
        root.handlers[:] = before
        root.setLevel(level_before)
        for handler in handlers:
            handler.close()


def _stderr(options: LogOptions, level: int | None) -> logging.Handler:
    handler = _Quiet(sys.stderr)
    handler.setFormatter(formatter(options.log_format))
    handler.addFilter(_Wanted(level))
    if level is None or level > logging.INFO:
        handler.addFilter(Repeats())
    elif level == logging.INFO:
        handler.addFilter(Repeats(PAGE_SECONDS, {PAGE_VIEW}))
    return handler


def _file(options: LogOptions, path: Path, level: int | None) -> logging.Handler:
    try:
        handler = _QuietFile(
            path,
            maxBytes=options.log_file_mb * 1_000_000,
            backupCount=options.log_files,
            encoding="utf-8",
        )
    except OSError as error:
        raise InputError(f"--log-file {path} cannot be written: {error.strerror or error}") from error
    handler.setFormatter(formatter(options.log_format))
    if level != logging.DEBUG:
        handler.addFilter(Repeats(PAGE_SECONDS, {PAGE_VIEW}))
        handler.addFilter(lambda record: record.name.startswith("gkt") or record.levelno >= logging.WARNING)
    return handler


class _Quiet(logging.StreamHandler):  # type: ignore[type-arg] # generic in the stubs alone
    """Loses a line that cannot be written: a full disk must not end what keeps the trainer running."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Say nothing: it could not be said either."""
        if not isinstance(sys.exc_info()[1], OSError | ValueError):
            super().handleError(record)


class _QuietFile(logging.handlers.RotatingFileHandler):
    """The same, with a file that is rotated, and that its owner alone reads: addresses stand in it."""

    handleError = _Quiet.handleError

    def _open(self) -> io.TextIOWrapper:
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return io.TextIOWrapper(open(descriptor, "ab", buffering=0), "utf-8", write_through=True)


class _Wanted(logging.Filter):
    """What a person at the terminal wants to see, more with -v, and all with -vv."""

    def __init__(self, level: int | None) -> None:
        super().__init__()
        self._level = level

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a record is shown."""
        if self._level is not None:
            return record.levelno >= self._level
        is_ours = record.name.startswith("gkt") and record.name not in (REQUESTS, TRAINER)
        return record.levelno >= (logging.INFO if is_ours else logging.WARNING)


class Repeats(logging.Filter):
    """Shows the same refusal once in a while, and then how often it came.

    Args:
        seconds: How long one that was shown is not shown again.
        operations: Whose requests alone; None for all.
    """

    def __init__(self, seconds: float = REPEAT_SECONDS, operations: Collection[str] | None = None) -> None:
        super().__init__()
        self._seconds, self._operations = seconds, operations
        self._shown: dict[tuple[object, ...], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a record is shown."""
        name, fields = event_of(record)
        if name != "request" or not (self._operations is None or fields.get("operation") in self._operations):
            return True
        key = tuple(fields.get(each) for each in ("client_id", "address", "operation", "status"))
        now = time.monotonic()
        at, num_left_out = self._shown.get(key, (-float("inf"), 0))
        if now - at < self._seconds:
            self._shown[key] = (at, num_left_out + 1)
            return False
        if len(self._shown) >= _MOST_KEPT:
            # Whoever asks under a thousand names is told of again.
            self._shown.clear()
        self._shown[key] = (now, 0)
        if num_left_out:
            record.msg = f"{record.getMessage()} ({num_left_out} more like it before)"
            record.args = ()
        return True
