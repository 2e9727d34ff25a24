"""One run under a supervisor, left alone or disturbed by kills."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gkt_core.errors import RunFailedError
from profiling.frame.processes import Child, ProcessGroup, arguments, free_port
from profiling.server.chaos.kills import SERVER, TRAINER, Kill, share_done
from profiling.server.chaos.outcome import left_over, run_hashes
from server_app.inviting import serve_link
from server_app.rounds.state import Phase
from server_app.run_folder import JOIN_NAME, RunContext, open_run

_POLL_SECONDS = 0.02
_DEVICE_POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Happened:
    """A kill that took place.

    Attributes:
        seconds: Since the run began.
        victim: Which process.
        pid: Its id.
        share_done: How much of the run was done, 0..1.
        phase: What the run waited for.
        round_num: Its round.
        epoch: The trainer's, 0 if it had not said.
    """

    seconds: float
    victim: str
    pid: int
    share_done: float
    phase: str
    round_num: int
    epoch: int


class SupervisedRun:
    """A server and its devices, each a process that is started again when it was killed.

    Args:
        folder: Of this run: ``server`` is the run's folder, already made; ``devices`` and ``logs`` are made.
        data_files: A private file for each device, in the order of their names.
        num_threads: CPU threads of trainer and devices, pinned.
        limit_seconds: Longer than that no run may take.
        announce: Takes a line for the person who watches.
    """

    def __init__(
        self,
        folder: Path,
        data_files: Sequence[Path],
        *,
        num_threads: int,
        limit_seconds: float,
        announce: Callable[[str], None],
    ) -> None:
        self._folder, self._limit_seconds, self._announce = folder.absolute(), limit_seconds, announce
        self._data_files = [file.absolute() for file in data_files]
        self._data_dir = self._folder / "server"
        self._state_dirs = [self._folder / "devices" / file.stem for file in data_files]
        self._threads = ("--threads", str(num_threads))
        self._started = 0.0
        self._happened: list[Happened] = []

    def run(self, kills: Sequence[Kill] = ()) -> dict[str, Any]:
        """Run to the end.

        Args:
            kills: What happens meanwhile, by ascending moment.

        Returns:
            ``hashes``, SHA-256 by name of what the run left; ``kills`` that it survived; ``starts`` of each
            command; ``leftovers``, unfinished files that stayed behind; ``seconds`` it took.

        Raises:
            RunFailedError: A process ended by itself, was left behind, or the run took too long or failed.
        """
        self._started = time.monotonic()
        run = open_run(self._data_dir)
        with contextlib.closing(run.store), ProcessGroup(self._folder) as processes:
            self._start(processes, run)
            self._watch(run, list(kills))
            seconds = time.monotonic() - self._started
            hashes = run_hashes(run, self._state_dirs)
        return {
            "hashes": hashes,
            "kills": [asdict(kill) for kill in self._happened],
            "starts": {command.name: command.num_starts for command in (self._server, *self._devices)},
            "leftovers": left_over(self._data_dir, *self._state_dirs),
            "seconds": seconds,
        }

    def _start(self, processes: ProcessGroup, run: RunContext) -> None:
        port, logs = free_port(), self._folder / "logs"
        serve = arguments("serve", data_dir=self._data_dir, port=port, poll_seconds=_DEVICE_POLL_SECONDS)
        self._server = processes.start(SERVER, [*serve, *self._threads], log=logs / "server.log")
        self._devices: list[Child] = []
        # Devices may come up before the server does.
        serve_link(run, f"http://127.0.0.1:{port}")
        for file, state_dir in zip(self._data_files, self._state_dirs, strict=True):
            words = arguments(
                "edge run",
                join=self._data_dir / JOIN_NAME,
                data=file,
                client_id=file.stem,
                state_dir=state_dir,
                checkpoint_seconds=0.2,
            )
            log = logs / f"{state_dir.name}.log"
            self._devices.append(processes.start(state_dir.name, [*words, *self._threads], log=log))

    def _watch(self, run: RunContext, kills: list[Kill]) -> None:
        due_at: float | None = None
        while any(device.exit_code != 0 for device in self._devices):
            for command in (self._server, *self._devices):
                command.check()
            now = time.monotonic()
            if now - self._started > self._limit_seconds:
                raise RunFailedError(
                    f"the run did not end in {self._limit_seconds:.0f} s: it is {run.store.state()}"
                )
            if kills and due_at is None and self._share_done(run) >= kills[0].at:
                due_at = now + kills[0].delay_seconds
            if due_at is not None and now >= due_at and self._strike(run, kills[0]):
                kills.pop(0)
                due_at = None
            time.sleep(_POLL_SECONDS)

    def _share_done(self, run: RunContext) -> float:
        state = run.store.state()
        if state.phase is Phase.FAILED:
            raise RunFailedError(f"the run failed: {state.error}")
        return share_done(state, run.store.progress()[0])

    def _strike(self, run: RunContext, kill: Kill) -> bool:
        """Kill, and start again what a supervisor would; False if nothing of the kind runs just now."""
        state, progress = run.store.state(), run.store.progress()[0]
        if kill.victim == TRAINER:
            trainer = self._server.own_child("server_app.trainer")
            if trainer is None:
                return False
            # Its own supervisor is the server.
            name, pid = TRAINER, trainer.pid
            trainer.kill()
        else:
            running = [device for device in self._devices if device.exit_code is None]
            if not running:
                return False
            victim = self._server if kill.victim == SERVER else running[int(kill.choice * len(running))]
            name, pid = victim.name, victim.kill()
            victim.start()
        happened = Happened(
            time.monotonic() - self._started,
            name,
            pid,
            share_done(state, progress),
            str(state.phase),
            state.round_num,
            progress.epoch if progress is not None and state.phase is Phase.TRAINING else 0,
        )
        self._happened.append(happened)
        self._announce(
            f"{happened.seconds:6.1f} s: killed {name} ({pid}), {happened.phase} in round "
            f"{happened.round_num}" + (f", epoch {happened.epoch}" if happened.epoch else "")
        )
        return True
