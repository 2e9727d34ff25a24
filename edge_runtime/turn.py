"""Wait for this device's turn: the server keeps the question until it has come, or says when to ask again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from edge_runtime.server_client import ServerClient
from gkt_core.wire.protocol import Task


def next_task(server: ServerClient, client_id: str, sleep: Callable[[float], None]) -> Task:
    """Ask what to do next, of a device that was told to wait.

    Args:
        server: The wire.
        client_id: The device.
        sleep: Waits where the server does not keep the question: an earlier version, or one that is asked by
            too many.
    """
    began = time.monotonic()
    task = server.task(client_id, waits=True)
    if task.action == "wait":
        # Devices that were told the same must not all ask at the same moment.
        rest = task.retry_after_seconds * random.uniform(0.8, 1.2) - (time.monotonic() - began)
        if rest > 0:
            sleep(rest)
    return task
