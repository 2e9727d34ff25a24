"""One run under a supervisor, left alone or disturbed: server and devices in processes of their own."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gkt_core.errors import ResourceError, RunFailedError
from gkt_core.wire.join_link import JOIN_NAME
from profiling.frame.processes import Child, ProcessGroup, arguments, free_port
from profiling.server.chaos.outcome import left_over, run_hashes
from server_app.members.inviting import serve_link
from server_app.own_certificate import names_of_this_machine, own_certificate
from server_app.rounds.state import Phase
from server_app.run_folder import RunContext, open_run

_POLL_SECONDS = 0.02
_DEVICE_POLL_SECONDS = 0.2
# So long that it leaves nobody out whom a strike has set back.
_DEADLINE_SECONDS = 900.0
_RESERVED_MB = 8
SERVER, TRAINER_MODULE = "server", "server_app.trainer"


@dataclass(frozen=True, slots=True)
class Where:
    """Folders of a run.

    Attributes:
        run: ``server`` in it is the run's folder, already made; ``devices`` is made.
        logs: What the processes print.
        data_files: A private file for each device, in the order of their names.
    """

    run: Path
    logs: Path
    data_files: tuple[Path, ...]


class SupervisedRun:
    """A server with its own certificate and its devices, started again when they were killed.

    Args:
        where: Its folders.
        num_threads: CPU threads of trainer and devices, pinned.
        limit_seconds: Longer than that no run may take.
        environment: Of all processes, added to this one's.

    Attributes:
        run: What it leaves, as the server sees it.
        server: Its process.
        devices: Theirs.
    """

    run: RunContext
    server: Child
    devices: list[Child]

    def __init__(
        self,
        where: Where,
        *,
        num_threads: int,
        limit_seconds: float,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._where, self._limit_seconds = where, limit_seconds
        self._data_dir = where.run.absolute() / "server"
        self._state_dirs = [where.run.absolute() / "devices" / file.stem for file in where.data_files]
        self._threads, self._environment = ("--threads", str(num_threads)), dict(environment or {})
        self._started = 0.0
        self._disk_was_full = False
        self.num_full = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Start all processes; they end with the block.

        Raises:
            RunFailedError: One was left behind.
        """
        self._started = time.monotonic()
        self.run = open_run(self._data_dir)
        with contextlib.closing(self.run.store), ProcessGroup(self._where.run) as processes:
            self._start(processes)
            yield

    def go_on(self, strike: Callable[[], None] = lambda: None) -> None:
        """Let it come to its end, calling something again and again.

        Raises:
            RunFailedError: A process ended by itself, or the run took too long or failed.
        """
        while any(device.exit_code != 0 for device in self.devices):
            self.look()
            state = self.run.store.state()
            if state.phase is Phase.FAILED:
                raise RunFailedError(f"the run failed: {state.error}")
            strike()
            time.sleep(_POLL_SECONDS)

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for something.

        Raises:
            RunFailedError: A process ended by itself first, or it takes too long.
        """
        while not condition():
            self.look(what)
            time.sleep(_POLL_SECONDS)

    def look(self, what: str = "the end") -> None:
        """Make sure that all processes run or have done their part.

        Raises:
            RunFailedError: One has not, or the run takes too long.
        """
        for command in (self.server, *self.devices):
            if self._disk_was_full and command.exit_code == ResourceError.exit_code:
                # It said so, and a supervisor starts it again once there is room.
                self.num_full += 1
                command.start()
            command.check()
        self._check_time(what)

    def _check_time(self, what: str) -> None:
        if self.seconds > self._limit_seconds:
            raise RunFailedError(
                f"{what} did not come in {self._limit_seconds:.0f} s: the run is {self.run.store.state()}"
            )

    def look_at_server(self, what: str) -> None:
        """Make sure that the server runs; devices may end, as with a run that fails.

        Raises:
            RunFailedError: It does not, or the run takes too long.
        """
        self.server.check()
        self._check_time(what)
        time.sleep(_POLL_SECONDS)

    def resume_failed(self) -> None:
        """Start the server again with the word that the cause is gone, and its devices as they were."""
        self.server.stop()
        self.server.start("--resume-failed")
        for device in self.devices:
            device.stop()
            device.start()

    @property
    def seconds(self) -> float:
        """Since it was started."""
        return time.monotonic() - self._started

    def disk_was_full(self) -> None:
        """Note that from now on a process may have ended because of it."""
        self._disk_was_full = True

    def outcome(self) -> dict[str, Any]:
        """Say what the run has left.

        Returns:
            ``hashes``, SHA-256 by name of what it left; ``starts`` of each command; ``leftovers``, unfinished
            files that stayed behind; ``seconds`` it took; ``restarts_for_disk``; ``quarantined`` devices.
        """
        commands = (self.server, *self.devices)
        return {
            "hashes": run_hashes(self.run, self._state_dirs),
            "starts": {command.name: command.num_starts for command in commands},
            "leftovers": [Path(path).name for path in left_over(self._data_dir, *self._state_dirs)],
            "seconds": self.seconds,
            "restarts_for_disk": self.num_full,
            "quarantined": [client_id for client_id, _ in self.run.store.state().quarantined],
        }

    def _start(self, processes: ProcessGroup) -> None:
        port = free_port()
        url = f"https://127.0.0.1:{port}"
        serve = arguments(
            "serve",
            data_dir=self._data_dir,
            # As for other machines: https, with a certificate of its own.
            host="0.0.0.0",
            public_url=url,
            port=port,
            poll_seconds=_DEVICE_POLL_SECONDS,
            round_deadline=_DEADLINE_SECONDS,
            # The disk that is filled is small.
            reserve_disk=_RESERVED_MB,
        )
        # Devices may come up before the server does.
        own = own_certificate(self._data_dir, names_of_this_machine("0.0.0.0", "127.0.0.1"))
        serve_link(self.run, url, own.authority)
        self.server = processes.start(
            SERVER,
            [*serve, *self._threads],
            log=self._where.logs / "server.log",
            # What it prints holds the link into the run; logs are shown around.
            stdout=Path(os.devnull),
            environment=self._environment,
        )
        self.devices = []
        for file, state_dir in zip(self._where.data_files, self._state_dirs, strict=True):
            words = arguments(
                "edge run",
                join=self._data_dir / JOIN_NAME,
                data=file.absolute(),
                client_id=file.stem,
                state_dir=state_dir,
                checkpoint_seconds=0.2,
            )
            self.devices.append(
                processes.start(
                    state_dir.name,
                    [*words, *self._threads],
                    log=self._where.logs / f"{state_dir.name}.log",
                    environment=self._environment,
                )
            )
