"""Start the trainer as a child process of the server, watch it, start it again, end it.

Nothing here imports PyTorch: the server's own process holds no network.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from gkt_core.config.allocator import TRAINING_ALLOCATOR
from gkt_core.errors import ConfigError, GKTError
from server_app.heartbeat import LEAST_SILENCE_SECONDS, Watchdog
from server_app.logs.piped import relay
from server_app.rounds.history import MODEL_LOST, TRAINER
from server_app.rounds.state import Failed, Noted, Phase
from server_app.run_folder import TRAINER_LOG_NAME, RunContext

log = logging.getLogger("gkt.server")

# Without getting any further in between.
MAX_TRAINER_RESTARTS = 5
_ENDED = object()
_POLL_SECONDS = 1.0
_LOOK_SECONDS = 0.25
_MODEL_AGAIN_SECONDS = 600.0
# Of what trainers printed; the file is then kept once more beside a new one.
_MOST_LOG_BYTES = 20_000_000
# Of a log: enough for its last line.
_TAIL_BYTES, _MOST_WORDS = 8192, 300


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
        silence_seconds: How long it may at least give no sign of life.
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
        silence_seconds: float = LEAST_SILENCE_SECONDS,
    ) -> None:
        self._silence_seconds = silence_seconds
        self._trouble = ""
        self._run, self._num_threads, self._announce = run, num_threads, announce
        self._num_procs, self._device, self._compiled = num_procs, device, compiled
        self._process: subprocess.Popen[bytes] | None = None
        # Where what the current process writes begins in the log.
        self._log_begin = 0
        self._stopping = threading.Event()
        # Set while the model of a finished run is to be made again, or is being made.
        self._model_wanted = threading.Event()
        # The checkpoint that it was last made from, and when.
        self._model_tried: tuple[int, float] = 0, 0.0
        # Held while a process takes the place of a dead one, so that none is started behind stop's back.
        self._changing = threading.Lock()
        self._watcher = threading.Thread(target=self._watch, name="trainer-watch", daemon=True)

    @property
    def trouble(self) -> str:
        """What is wrong with the trainer now, without details; empty while one is at work."""
        return self._trouble

    def make_model(self) -> bool:
        """Let a trainer make the model of a finished run again; whether one is at it.

        The same checkpoint is tried once in ten minutes: whoever asks for the model asks again and again.
        """
        if not self._watcher.is_alive():
            return False
        with self._changing:
            if self._model_wanted.is_set():
                return True
            try:
                checkpoint = self._run.checkpoint_path(self._run.store.state().round_num).stat().st_mtime_ns
            except OSError:
                return False
            tried, at = self._model_tried
            now = time.monotonic()
            if tried == checkpoint and now - at < _MODEL_AGAIN_SECONDS:
                return False
            self._model_tried = checkpoint, now
            self._model_wanted.set()
            return True

    def _note_model(self) -> None:
        """Be ready to make the model once more, at once where this time it was made."""
        with self._changing:
            with contextlib.suppress(GKTError, SQLAlchemyError):
                history = self._run.store.state().history
                if not (history and history[-1].text.startswith(MODEL_LOST)):
                    self._model_tried = 0, 0.0
            self._model_wanted.clear()

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
        command += ["--silence", str(self._silence_seconds)]
        log_path = self._run.folder / TRAINER_LOG_NAME
        with contextlib.suppress(OSError):
            if log_path.stat().st_size > _MOST_LOG_BYTES:
                log_path.replace(log_path.with_name(f"{TRAINER_LOG_NAME}.1"))
        said, says = os.pipe()
        relay(said)
        # The trainer's own copy of it is then the only one, and its end is the end of the pipe.
        with log_path.open("ab") as printed, open(says, "wb"):
            self._log_begin = printed.tell()
            # A session of its own: Ctrl-C reaches the server, which then ends the trainer in order.
            return subprocess.Popen(
                [*command, "--log-fd", str(says)],
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
                env={**TRAINING_ALLOCATOR, **os.environ},
                start_new_session=True,
                pass_fds=(says,),
            )

    def _watch(self) -> None:
        num_deaths, last_mark, reason = 0, None, ""
        makes_model = False
        while True:
            process = self._process
            exit_code, hangs = self._await_end(process) if process is not None else (0, "")
            if process is not None:
                _kill_group(process)
            if makes_model:
                self._note_model()
            if self._stopping.is_set():
                return
            mark = self._mark()
            if mark is _ENDED:
                if not self._is_taken_up():
                    return
                num_deaths, last_mark, makes_model = 0, None, self._model_wanted.is_set()
            else:
                num_deaths = num_deaths + 1 if mark == last_mark else 1
                last_mark = mark
                reason = hangs or self._tell_of_death(exit_code)
            if num_deaths > MAX_TRAINER_RESTARTS:
                break
            # At once after a first death, later after longer and longer waits.
            self._stopping.wait(0 if num_deaths <= 1 else 2.0 ** (num_deaths - 2))
            with self._changing:
                if self._stopping.is_set():
                    return
                self._process = self._spawn()
            log.info("another trainer has been started")
        reason = (
            f"the trainer process died {num_deaths} times without getting any further, at last with {reason}"
        )
        # A database that is damaged, or gone, takes no note of it.
        with contextlib.suppress(GKTError, SQLAlchemyError):
            self._run.store.apply(Failed(reason))

    def _tell_of_death(self, exit_code: int) -> str:
        log_path = self._run.folder / TRAINER_LOG_NAME
        reason = describe_death(exit_code, log_path, self._log_begin)
        self._trouble = "the trainer died"
        self._announce(f"warning: the trainer ended with {reason}; its log is {log_path}")
        self._note(f"ended with {reason}")
        return reason

    def _await_end(self, process: subprocess.Popen[bytes]) -> tuple[int, str]:
        """Wait until the process ends, or hangs and is killed: its exit code, and how it hung."""
        watchdog, silent = Watchdog(self._run.folder, process.pid), ""
        while process.poll() is None:
            if self._stopping.wait(_LOOK_SECONDS):
                return process.wait(), ""
            silent = watchdog.look()
            if silent:
                self._trouble = "the trainer hangs"
                self._announce(f"warning: the trainer hangs: {silent}; it is killed and started again")
                _kill_group(process)
                exit_code = process.wait()
                # Not before: stopped in the midst of a transaction, it holds what is written to here.
                self._note(f"hangs: {silent}")
                return exit_code, f"it hangs, {silent}"
            if watchdog.has_begun:
                self._trouble = ""
        return process.wait(), ""

    def _note(self, text: str) -> None:
        """Keep it in the run's history, if the database answers."""
        with contextlib.suppress(GKTError, SQLAlchemyError):
            self._run.store.apply(Noted(TRAINER, text))

    def _mark(self) -> object:
        """How far training is, to tell a trainer that dies at the same place from one that is unlucky."""
        try:
            state = self._run.store.state()
        except (GKTError, SQLAlchemyError) as error:
            self._announce(f"warning: the database does not answer: {error}")
            return None
        if state.phase in (Phase.FINISHED, Phase.FAILED):
            return _ENDED
        try:
            return state.round_num, self._run.epoch_checkpoint_path.stat().st_mtime_ns
        except OSError:
            return state.round_num, 0

    def _is_taken_up(self) -> bool:
        """Wait until there is something to do again after the run has ended; False if the server stops.

        A person lets a failed run go on, or the model of a finished one is damaged.
        """
        while not self._stopping.wait(_POLL_SECONDS):
            if self._model_wanted.is_set():
                self._announce("the trained model is damaged: it is made again")
                return True
            with contextlib.suppress(GKTError, SQLAlchemyError):
                if self._run.store.state().phase not in (Phase.FAILED, Phase.FINISHED):
                    return True
        return False


def check_trainer(
    artifacts: Path,
    *,
    device: str,
    num_procs: int,
    precision: str,
    init: Path | None = None,
    networks: Sequence[str] = (),
) -> None:
    """Refuse what a trainer on this machine could not do, before there is one.

    Args:
        artifacts: The run's bundle.
        device: ``cpu`` or ``cuda``.
        num_procs: Processes that train together; 0 where they are on other machines.
        precision: Of the run.
        init: Weights that the server network is to begin from.
        networks: Modules that register one of the user's own.

    Raises:
        ConfigError: Says what is missing.
    """
    if device == "cpu" and init is None:
        # Every machine has one, and can do all of it: no need to wait for PyTorch.
        return
    command = [sys.executable, "-m", "server_app.trainer.check", "--artifacts", str(artifacts)]
    command += ["--device", device, "--procs", str(num_procs), "--precision", precision]
    command += ["--init", str(init)] if init is not None else []
    command += [word for source in networks for word in ("--networks", source)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"the check ended with exit code {done.returncode}"]
        raise ConfigError(lines[-1].removeprefix("error: "))


def describe_death(exit_code: int, log_path: Path, begin: int) -> str:
    """Say how a trainer ended: exit code, or signal, and the last line that it wrote.

    Args:
        exit_code: As :class:`subprocess.Popen` has it.
        log_path: What it wrote to.
        begin: Where that begins; what stands before is of another process.
    """
    words = f"exit code {exit_code}"
    if exit_code < 0:
        with contextlib.suppress(ValueError):
            words += f" ({signal.Signals(-exit_code).name})"
        if exit_code == -signal.SIGKILL:
            words += ": killed from outside, as systems do where memory runs out"
        return words
    try:
        with log_path.open("rb") as log:
            log.seek(max(begin, log.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = log.read().decode(errors="replace").split("\n")
    except OSError:
        return words
    said = [line.strip() for line in lines if line.strip()]
    return f"{words}: {said[-1][:_MOST_WORDS]}" if said else words


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """End what a trainer that has ended has started: processes that train together go down together."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
