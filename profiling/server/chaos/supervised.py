"""Commands kept running as an operator's supervisor would: whatever was killed starts again, as it was."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from gkt_core.errors import RunFailedError

_END_SECONDS = 30.0


class Supervised:
    """One command of ``gkt``.

    Args:
        name: For messages.
        arguments: After ``gkt``; the same at every start.
        log: Its output, of all starts together.
        environment: Added to this process's; secrets do not belong on a command line.
    """

    def __init__(
        self, name: str, arguments: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self._arguments, self._log, self._environment = list(arguments), log, dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self.num_starts = 0

    def start(self) -> None:
        """Start it."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gkt_core.cli", *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self._environment, "COLUMNS": "200"},
                start_new_session=True,
            )
        self.num_starts += 1

    @property
    def exit_code(self) -> int | None:
        """None while it runs, and before it was started."""
        return None if self._process is None else self._process.poll()

    @property
    def has_ended_well(self) -> bool:
        """Whether its work is done."""
        return self.exit_code == 0

    def check(self) -> None:
        """Make sure that it has not ended by itself, which a supervisor should never see.

        Raises:
            RunFailedError: It has, with an error.
        """
        if self.exit_code not in (None, 0):
            lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise RunFailedError(
                f"{self.name} ended by itself with exit code {self.exit_code} at its start number "
                f"{self.num_starts}: {lines[-1] if lines else 'it said nothing'} (log: {self._log})"
            )

    def kill(self) -> int:
        """Kill it with SIGKILL, and nothing that it has started, as the kernel would; its process id."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        return self._process.pid

    def stop(self) -> None:
        """End it in order."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def child(self, module: str) -> psutil.Process | None:
        """Its child process that runs this module, if there is one."""
        if self._process is None or self._process.poll() is not None:
            return None
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self._process.pid).children():
                with contextlib.suppress(psutil.Error):
                    if module in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                        return child
        return None


@contextlib.contextmanager
def stopped_in_the_end(commands: Sequence[Supervised], folder: Path) -> Iterator[None]:
    """Stop commands with the block, however it ends; then nothing that names ``folder`` may run any more.

    Raises:
        RunFailedError: A process was left behind.
    """
    try:
        yield
    finally:
        for command in reversed(commands):
            command.stop()
        wait_until(
            lambda: not processes_of(folder),
            _END_SECONDS,
            lambda: f"processes were left behind: {processes_of(folder)}",
            on_failure=lambda: _kill_all(folder),
        )


def processes_of(folder: Path) -> list[str]:
    """Command lines of the processes that were started with this folder as an argument."""
    return [f"{found.pid}: {' '.join(found.cmdline())}" for found in _processes_of(folder)]


def _processes_of(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and any(
                argument.startswith(f"{folder}{os.sep}") for argument in process.cmdline()
            ):
                found.append(process)
    return found


def _kill_all(folder: Path) -> None:
    for process in _processes_of(folder):
        with contextlib.suppress(psutil.Error):
            process.kill()


def wait_until(
    condition: Callable[[], bool],
    seconds: float,
    failure: Callable[[], str],
    on_failure: Callable[[], None] = lambda: None,
) -> None:
    """Wait for something.

    Raises:
        RunFailedError: It did not happen in time; ``failure`` is the message.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            message = failure()
            on_failure()
            raise RunFailedError(message)
        time.sleep(0.05)
