"""Waiting for what another process does, and noticing when it never will."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gkt_core.errors import RunFailedError
from profiling.frame.processes.child import Child

# What never comes is noticed by the end of the process; only one that hangs is waited for so long.
_START_SECONDS = 300.0
_POLL_SECONDS = 0.05


def wait_until(condition: Callable[[], bool], seconds: float, failure: Callable[[], str]) -> None:
    """Wait for something.

    Raises:
        RunFailedError: It did not happen in time; ``failure`` is the message.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RunFailedError(failure())
        time.sleep(_POLL_SECONDS)


def wait_for_server(server: Child, data_dir: Path) -> dict[str, Any]:
    """Wait until a ``gkt serve`` takes requests.

    Args:
        server: The command.
        data_dir: Its ``--data-dir``.

    Returns:
        What its ``server.json`` says: ``url`` and ``pid`` among others.

    Raises:
        GKTError: It ended.
        RunFailedError: It does not begin.
    """
    path = data_dir / "server.json"

    def has_begun() -> bool:
        if server.exit_code is not None:
            raise server.failure()
        return path.is_file()

    wait_until(
        has_begun,
        _START_SECONDS,
        lambda: f"{server.name} did not start in {_START_SECONDS:.0f} s (log: {server.log})",
    )
    info: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return info
