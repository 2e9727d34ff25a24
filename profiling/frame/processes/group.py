"""The processes of a measurement together: they end with the block, and nothing is left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from profiling.frame.processes.child import GRACE_SECONDS, Child
from profiling.frame.processes.waiting import wait_until

_LEFT_SECONDS = 30.0


class ProcessGroup:
    """Children that end with the block, whatever ends it.

    Args:
        folder: When all have been stopped, no process may run that was started with an argument below it.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._children: list[Child] = []
        self._folder = None if folder is None else folder.absolute()

    def __enter__(self) -> ProcessGroup:
        """Begin."""
        return self

    def __exit__(self, *error: object) -> None:
        """Stop whatever still runs.

        Raises:
            RunFailedError: A process was left behind; it is killed.
        """
        self.stop(self._children)
        if self._folder is not None:
            _nothing_left(self._folder)

    def start(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        log: Path,
        stdout: Path | None = None,
        environment: Mapping[str, str] | None = None,
        module: str = "gkt_core.cli",
    ) -> Child:
        """Start ``gkt`` with these arguments; :class:`Child` says what they mean."""
        child = Child(name, arguments, log=log, stdout=stdout, environment=environment, module=module)
        self._children.append(child)
        return child

    def run(self, name: str, arguments: Sequence[str], *, log: Path, stdout: Path | None = None) -> None:
        """Start a command and wait for its end.

        Raises:
            InputError: It refused its input.
            RunFailedError: It failed otherwise.
        """
        self.wait([self.start(name, arguments, log=log, stdout=stdout)])

    def wait(self, children: Sequence[Child], meanwhile: Callable[[], None] = lambda: None) -> None:
        """Wait until all have ended well, and call something again and again meanwhile.

        Raises:
            GKTError: One of them did not; the others are left to the block's end.
        """
        for _ in self.watch(children):
            meanwhile()
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
            deadline = time.monotonic() + GRACE_SECONDS
            for child in running:
                child.stop(max(0.1, deadline - time.monotonic()))


def processes_of(folder: Path) -> dict[psutil.Process, str]:
    """Find the processes that were started with an argument below a folder, with their command lines."""
    running = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            if process.pid != os.getpid() and any(word.startswith(f"{folder}{os.sep}") for word in words):
                running[process] = f"{process.pid}: {' '.join(words)}"
    return running


def _nothing_left(folder: Path) -> None:
    try:
        wait_until(
            lambda: not processes_of(folder),
            _LEFT_SECONDS,
            lambda: f"processes were left behind: {list(processes_of(folder).values())}",
        )
    finally:
        for process in processes_of(folder):
            with contextlib.suppress(psutil.Error):
                process.kill()


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """A second Ctrl-C must not interrupt the stopping of the others."""
    previous = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
