"""A ``gkt`` command that is killed in the middle of its work, however slow or loaded the machine is.

A test that watches for a file and then kills is a race: on a busy machine the command may have ended before
the test is scheduled again. Here the command itself counts, and is killed from within.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.conftest import LONGEST_SECONDS

_KILLED = """
import importlib, os, signal, sys, threading

place, calls, delay = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
del sys.argv[1:4]
module, _, path = place.partition(":")
owner = importlib.import_module(module)
*parents, name = path.split(".")
for parent in parents:
    owner = getattr(owner, parent)
original = getattr(owner, name)


def counted(*args, **kwargs):
    global calls
    result = original(*args, **kwargs)
    calls -= 1
    if calls == 0:
        threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
    return result


setattr(owner, name, counted)
from gkt_core.cli import main

main()
"""


def run_killed(
    *arguments: str | Path, after: str, calls: int, delay_seconds: float, cwd: Path | None = None
) -> None:
    """Run ``gkt`` until a function has returned so often, and kill it a moment later, without a warning.

    Args:
        arguments: After ``gkt``.
        after: ``module:function`` or ``module:Class.method``.
        calls: How often it returns first.
        delay_seconds: From then on; at whatever moment that is.
        cwd: Where it runs.
    """
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, after, str(calls), str(delay_seconds), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        timeout=LONGEST_SECONDS,
        env={name: value for name, value in os.environ.items() if name != "GKT_TOKEN"},
    )
    assert done.returncode == -signal.SIGKILL, f"it ended by itself: {done.returncode} {done.stderr[-2000:]}"
