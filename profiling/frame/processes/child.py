"""One command in a process of its own, which is started again as it was when something has killed it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

from gkt_core.errors import GKTError, InputError, RunFailedError

GRACE_SECONDS = 15.0


class Child:
    """A command of ``gkt``, or another module that is run as a program.

    Args:
        name: For messages.
        arguments: After ``gkt``; the same at every start.
        log: Its stderr of all starts, and its stdout unless ``stdout`` is given.
        stdout: A file for its stdout.
        environment: Added to this process's; secrets do not belong on a command line.
        module: What is run.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        log: Path,
        stdout: Path | None = None,
        environment: Mapping[str, str] | None = None,
        module: str = "gkt_core.cli",
    ) -> None:
        self.name, self.log, self.num_starts = name, log, 0
        self._command = [sys.executable, "-m", module, *arguments]
        self._stdout, self._environment = stdout, dict(environment or {})
        self._log_begin = 0
        self.start()

    def start(self, *more: str) -> None:
        """Start it, for the first time or again.

        Args:
            more: Arguments of this start alone.
        """
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as files:
            log = files.enter_context(self.log.open("ab"))
            self._log_begin = log.tell()
            out: IO[bytes] = log if self._stdout is None else files.enter_context(self._stdout.open("wb"))
            self.process = subprocess.Popen(
                [*self._command, *more],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                env={**os.environ, **self._environment, "COLUMNS": "200"},
                # A session of its own: Ctrl-C reaches this process alone, which then stops them in order.
                start_new_session=True,
            )
        self.num_starts += 1

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self.process.poll()

    def failure(self) -> GKTError:
        """Describe its end as an error: what it said last, and where the rest stands."""
        message = self._last_words()
        if self.exit_code == InputError.exit_code:
            return InputError(message)
        return RunFailedError(f"{self.name} failed: {message} (log: {self.log})")

    def check(self) -> None:
        """Make sure that it has not ended by itself, which a supervisor should never see.

        Raises:
            RunFailedError: It has, with an error.
        """
        if self.exit_code not in (None, 0):
            raise RunFailedError(
                f"{self.name} ended by itself with exit code {self.exit_code} at its start number "
                f"{self.num_starts}: {self._last_words()} (log: {self.log})"
            )

    def _last_words(self) -> str:
        with self.log.open("rb") as log:
            log.seek(self._log_begin)
            lines = log.read().decode("utf-8", errors="replace").strip().splitlines()
        error = next((line for line in reversed(lines) if line.startswith("error: ")), "".join(lines[-1:]))
        return error.removeprefix("error: ") or f"{self.name} ended with exit code {self.exit_code}"

    def own_child(self, module: str) -> psutil.Process | None:
        """Find the process that it has started to run a module, if there is one."""
        if self.exit_code is None:
            with contextlib.suppress(psutil.Error):
                for child in psutil.Process(self.process.pid).children():
                    with contextlib.suppress(psutil.Error):
                        if module in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                            return child
        return None

    def kill(self) -> int:
        """Kill it with SIGKILL, and nothing that it has started, as the kernel would; its process id."""
        self.process.kill()
        self.process.wait()
        return self.process.pid

    def kill_all(self) -> None:
        """Kill it and whatever it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """Ask it to end; kill it and whatever it has started if it does not within the grace time."""
        if self.exit_code is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=grace_seconds)
            except subprocess.TimeoutExpired:
                self.kill_all()
