"""Start the trainer as a child process of the server, watch it, start it again, end it.

Nothing here imports PyTorch: the server's own process holds no network.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from gkt_core.config.allocator import TRAINING_ALLOCATOR
from gkt_core.errors import GKTError
from server_app.rounds.state import Failed, Phase
from server_app.run_folder import TRAINER_LOG_NAME, RunContext

# Without getting any further in between.
MAX_TRAINER_RESTARTS = 5
_ENDED = object()
_POLL_SECONDS = 1.0


class TrainerProcess:
    """The trainer as a child process, started again when it dies before the run has ended.

    Only one that dies again and again at the same place makes the run fail.

    Args:
        run: The run.
        num_threads: CPU threads of all its processes together; 0 means all cores.
        announce: Takes a line for the person who watches.
        num_procs: Processes that train together; 0 where torchrun starts them elsewhere.
        device: ``cpu`` or ``cuda``.
        compiled: Of :data:`gkt_core.config.run_config.COMPILE`.
    """

    def __init__(
        self,
        run: RunContext,
        num_threads: int,
        announce: Callable[[str], None],
        *,
        num_procs: int = 1,
        device: str = "cpu",
        compiled: str = "off",
    ) -> None:
        self._run, self._num_threads, self._announce = run, num_threads, announce
        self._num_procs, self._device, self._compiled = num_procs, device, compiled
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        # Held while a process takes the place of a dead one, so that none is started behind stop's back.
        self._changing = threading.Lock()
        self._watcher = threading.Thread(target=self._watch, name="trainer-watch", daemon=True)

    def start(self) -> None:
        """Start the process and watch it."""
        if not self._num_procs:
            return
        self._process = self._spawn()
        self._watcher.start()

    def stop(self) -> None:
        """End the process and wait for it."""
        with self._changing:
            self._stopping.set()
            process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if process is not None:
            _kill_group(process)
        if self._watcher.is_alive():
            self._watcher.join(timeout=10)

    def _spawn(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "server_app.trainer", "--data-dir", str(self._run.folder)]
        threads = self._num_threads
        if self._num_procs > 1:
            threads = max(1, (threads or os.cpu_count() or 1) // self._num_procs)
            command += ["--procs", str(self._num_procs)]
        command += ["--threads", str(threads), "--device", self._device, "--parent-pid", str(os.getpid())]
        command += ["--compile", self._compiled]
        with (self._run.folder / TRAINER_LOG_NAME).open("ab") as log:
            # A session of its own: Ctrl-C reaches the server, which then ends the trainer in order.
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**TRAINING_ALLOCATOR, **os.environ},
                start_new_session=True,
            )

    def _watch(self) -> None:
        num_deaths, last_mark = 0, None
        while True:
            process = self._process
            exit_code = process.wait() if process is not None else 0
            if process is not None:
                _kill_group(process)
            if self._stopping.is_set():
                return
            mark = self._mark()
            if mark is _ENDED:
                if not self._is_taken_up():
                    return
                num_deaths, last_mark = 0, None
                self._announce("the run goes on")
            else:
                num_deaths = num_deaths + 1 if mark == last_mark else 1
                last_mark = mark
                log_path = self._run.folder / TRAINER_LOG_NAME
                self._announce(f"the trainer ended with exit code {exit_code}; its log is {log_path}")
            if num_deaths > MAX_TRAINER_RESTARTS:
                break
            # At once after a first death, later after longer and longer waits.
            self._stopping.wait(0 if num_deaths <= 1 else 2.0 ** (num_deaths - 2))
            with self._changing:
                if self._stopping.is_set():
                    return
                self._process = self._spawn()
        reason = f"the trainer process died {num_deaths} times without getting any further"
        self._run.store.apply(Failed(reason))
        self._announce(f"the run failed: {reason}")

    def _mark(self) -> object:
        """How far training is, to tell a trainer that dies at the same place from one that is unlucky."""
        try:
            state = self._run.store.state()
        except (GKTError, SQLAlchemyError) as error:
            self._announce(f"the database does not answer: {error}")
            return None
        if state.phase is Phase.FAILED:
            self._announce(f"the run failed: {state.error}")
        if state.phase in (Phase.FINISHED, Phase.FAILED):
            return _ENDED
        try:
            return state.round_num, self._run.epoch_checkpoint_path.stat().st_mtime_ns
        except OSError:
            return state.round_num, 0

    def _is_taken_up(self) -> bool:
        """Wait until a person lets a failed run go on; False if it is finished, or the server stops."""
        while not self._stopping.wait(_POLL_SECONDS):
            with contextlib.suppress(GKTError, SQLAlchemyError):
                phase = self._run.store.state().phase
                if phase is not Phase.FAILED:
                    return phase is not Phase.FINISHED
        return False


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """End what a trainer that has ended has started: processes that train together go down together."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
