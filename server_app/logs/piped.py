"""Bring what the trainer logs to the server, which writes it to where all else is written.

A line of JSON a record through a pipe that the trainer inherits. The trainer never waits for it: what does
not fit into the pipe at once, as the server is stopped, is lost there and stands in ``trainer.log`` still.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
from typing import Any

from server_app.logs.formats import event, event_of

# Written at once or not at all, however many threads write (POSIX: PIPE_BUF).
_MOST_BYTES = 4096
_LONGEST_TEXT = 2000


class PipeHandler(logging.Handler):
    """Sends records through a pipe.

    Args:
        descriptor: Its end for writing.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor

    def emit(self, record: logging.LogRecord) -> None:
        """Send one, if there is room."""
        name, fields = event_of(record)
        values: dict[str, Any] = {
            "name": record.name,
            "level": record.levelno,
            "message": record.getMessage()[:_LONGEST_TEXT],
            "event": name,
            "fields": fields,
        }
        line = json.dumps(values, default=str).encode() + b"\n"
        if len(line) > _MOST_BYTES:
            values["message"], values["fields"] = str(values["message"])[: _LONGEST_TEXT // 4], {}
            line = json.dumps(values, default=str).encode() + b"\n"
        # The server is gone, or stopped.
        with contextlib.suppress(OSError):
            os.write(self._descriptor, line)


def relay(descriptor: int) -> threading.Thread:
    """Log what comes through a pipe, in a thread that ends with it.

    Args:
        descriptor: Its end for reading, which is closed in the end.
    """
    thread = threading.Thread(target=_relay, args=(descriptor,), name="trainer-log", daemon=True)
    thread.start()
    return thread


def _relay(descriptor: int) -> None:
    with open(descriptor, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                values = json.loads(line)
                logging.getLogger(str(values["name"])).log(
                    int(values["level"]),
                    "%s",
                    values["message"],
                    extra=event(values["event"], **values["fields"]),
                )
