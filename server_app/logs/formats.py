"""Write one event a line: as a person reads it, or as JSON for what collects logs."""

from __future__ import annotations

import json
import logging
import time
from datetime import UTC, datetime
from typing import Any

from gkt_core.printable import printable

PLAIN, JSON = "plain", "json"
FORMATS = (PLAIN, JSON)
# Of a record: what happened, as a stable name, and what belongs to it.
_EVENT, _FIELDS = "event", "fields"
_LONGEST_LINE = 16_384


def event(name: str, **fields: Any) -> dict[str, Any]:
    """Give the ``extra`` of a call of logging.

    Args:
        name: What happened, ``round`` or ``join``: stable, for programs.
        **fields: What belongs to it, JSON-compatible; never a secret, a feature or a label.
    """
    return {_EVENT: name, _FIELDS: fields}


def event_of(record: logging.LogRecord) -> tuple[str, dict[str, Any]]:
    """What :func:`event` put into a record; nothing where it came without."""
    return getattr(record, _EVENT, ""), getattr(record, _FIELDS, {})


class PlainLine(logging.Formatter):
    """``2026-11-30 14:05:33 warning: client-003 is quarantined: ...``, in local time."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record as one line; a traceback follows on lines of its own."""
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        if not record.name.startswith("gkt"):
            level += f"{record.name}: "
        # Names and reasons come from other machines: no end of a line, no escape code.
        line = f"{at} {level}{printable(record.getMessage())[:_LONGEST_LINE]}"
        return line if record.exc_info is None else f"{line}\n{self.formatException(record.exc_info)}"


class JsonLine(logging.Formatter):
    """``{"time": "2026-11-30T14:05:33.120Z", "level": "info", "event": "round", "message": ...}``."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record as one line, whatever it holds."""
        name, fields = event_of(record)
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        values = {
            "time": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": name or "message",
            "message": record.getMessage()[:_LONGEST_LINE],
            **fields,
        }
        if record.exc_info is not None:
            values["traceback"] = self.formatException(record.exc_info)[:_LONGEST_LINE]
        return json.dumps(values, default=str)


def formatter(name: str) -> logging.Formatter:
    """The formatter of a format."""
    return JsonLine() if name == JSON else PlainLine()
