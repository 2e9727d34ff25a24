"""The operating-system processes of a run: started together, watched, and never left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from gkt_core.errors import GKTError, InputError, RunFailedError

_GRACE_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Child:
    """One running command and where its output goes."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self.process.poll()

    def failure(self) -> GKTError:
        """Its end as an error: what it said last, and where the rest stands."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        last = next(
            (line for line in reversed(lines) if line.startswith("error: ")), lines[-1] if lines else ""
        )
        message = last.removeprefix("error: ") or f"{self.name} ended with exit code {self.exit_code}"
        if self.exit_code == InputError.exit_code:
            return InputError(message)
        return RunFailedError(f"{self.name} failed: {message} (log: {self.log})")


class ProcessGroup:
    """Children that end with the block, whatever ends it."""

    def __init__(self) -> None:
        self._children: list[Child] = []

    def __enter__(self) -> ProcessGroup:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop whatever still runs."""
        self.stop(self._children)

    def start(self, name: str, arguments: Sequence[str], *, log: Path, stdout: Path | None = None) -> Child:
        """Start ``gkt`` with these arguments.

        Args:
            name: For messages.
            arguments: After ``gkt``.
            log: Where its stderr goes, and its stdout unless ``stdout`` is given.
            stdout: A file for its stdout.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as files:
            log_file = files.enter_context(log.open("wb"))
            out_file = log_file if stdout is None else files.enter_context(stdout.open("wb"))
            process = subprocess.Popen(
                [sys.executable, "-m", "gkt_core.cli", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out_file,
                stderr=log_file,
                env={**os.environ, "COLUMNS": "200"},
                # A session of its own: Ctrl-C reaches the demo alone, which then stops them in order.
                start_new_session=True,
            )
        child = Child(name, process, log)
        self._children.append(child)
        return child

    def run(self, name: str, arguments: Sequence[str], *, log: Path, stdout: Path | None = None) -> None:
        """Start a command and wait for its end.

        Raises:
            InputError: It refused its input.
            RunFailedError: It failed otherwise.
        """
        self.wait([self.start(name, arguments, log=log, stdout=stdout)])

    def wait(self, children: Sequence[Child]) -> None:
        """Wait until all have ended well.

        Raises:
            GKTError: One of them did not; the others are left to the block's end.
        """
        for _ in self.watch(children):
            time.sleep(0.05)

    def watch(self, children: Sequence[Child]) -> Iterator[list[Child]]:
        """Yield those still running until none is.

        Raises:
            GKTError: One of them failed.
        """
        while True:
            running = [child for child in children if child.exit_code is None]
            for child in children:
                if child.exit_code not in (None, 0):
                    raise child.failure()
            if not running:
                return
            yield running

    def stop(self, children: Sequence[Child]) -> None:
        """Ask the still running to end; kill those that do not within the grace time."""
        with _deaf_to_interrupts():
            running = [child for child in children if child.exit_code is None]
            for child in running:
                child.process.terminate()
            deadline = time.monotonic() + _GRACE_SECONDS
            for child in running:
                try:
                    child.process.wait(timeout=max(0.1, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(child.process.pid, signal.SIGKILL)
                    child.process.wait()


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """A second Ctrl-C must not interrupt the stopping of the others."""
    previous = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
