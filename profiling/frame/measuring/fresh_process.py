"""Measuring in a fresh process, the only one whose first step is cold and whose memory is its own.

The parent calls :func:`measure_fresh`; the module that it names ends with ``answer(function)``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from gkt_core.errors import GKTError, InputError, RunFailedError

_SECONDS = 3600.0


def measure_fresh(
    module: str,
    spec: Mapping[str, Any],
    *,
    what: str,
    advice: str = "is there enough memory? Try a smaller --batch-size",
    environment: Mapping[str, str | None] | None = None,
    timeout_seconds: float = _SECONDS,
    announce: Callable[[str], None] = lambda line: None,
) -> Any:
    """Run ``python -m MODULE SPEC`` and read its answer.

    Args:
        module: Ends with :func:`answer`.
        spec: What it measures; JSON.
        what: Names the process in errors.
        advice: What to do when it dies without a word.
        environment: Variables beside this process's own, or in place of them; None takes one away.
        timeout_seconds: After so long it is killed: a hung engine must not hang the command.
        announce: Told each line of its stderr.

    Raises:
        InputError: It refused what it was given.
        RunFailedError: It failed otherwise, or was killed.
    """
    variables = {**os.environ, **(environment or {})}
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as out,
        subprocess.Popen(
            [sys.executable, "-m", module, json.dumps(spec)],
            env={name: value for name, value in variables.items() if value is not None},
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        last: deque[str] = deque(maxlen=3)
        killer = threading.Timer(timeout_seconds, process.kill)
        killer.start()
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if line.strip():
                    last.append(line.strip())
                    announce(last[-1])
            process.wait()
        except BaseException:
            process.kill()
            raise
        finally:
            killer.cancel()
        if process.returncode == 0:
            out.seek(0)
            return json.load(out)
    said = next((line for line in reversed(last) if line.startswith("error: ")), "")
    if process.returncode == InputError.exit_code and said:
        raise InputError(said.removeprefix("error: "))
    why = said.removeprefix("error: ") or f"{' '.join(last)[-300:]}: {advice}".removeprefix(": ")
    raise RunFailedError(f"{what} ended with exit code {process.returncode}: {why}")


def answer(function: Callable[[dict[str, Any]], Any]) -> None:
    """Measure what the first argument says and print it as JSON, in the fresh process.

    Ends the process with the error's exit code if it is one of gkt's.
    """
    try:
        answered = function(json.loads(sys.argv[1]))
    except GKTError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    sys.stdout.write(json.dumps(answered) + "\n")


def say(line: str) -> None:
    """Tell the parent what happens now, from the fresh process."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - read by the parent
