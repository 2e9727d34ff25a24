"""One server: a listening socket, the web server on it, the trainer beside it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from sqlalchemy.exc import SQLAlchemyError

from gkt_core.errors import AddressInUseError, GKTError, InputError, RunFailedError
from gkt_core.files import lock_exclusively, write_atomically
from server_app.rounds.state import Failed, Phase
from server_app.run_folder import SERVER_INFO_NAME, SERVER_LOCK_NAME, TRAINER_LOG_NAME, RunContext, read_token
from server_app.web.app import create_app
from server_app.web.classifier import FeatureClassifier
from server_app.web.gunicorn_server import WebServer

# Without getting any further in between.
MAX_TRAINER_RESTARTS = 5
# Of requests that are being handled when the server stops.
_LAST_REQUESTS_SECONDS = 5
_ENDED = object()
# PyTorch's large buffers otherwise go back to the system after each step and fault in again.
_ALLOCATOR = {
    "MALLOC_TOP_PAD_": str(256 << 20),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
}


def bind(host: str, port: int) -> socket.socket:
    """Take the address before anything is written.

    Args:
        host: Address to listen on.
        port: Port, or 0 for a free one.

    Raises:
        AddressInUseError: Another process has it.
        InputError: The address is not one of this machine, or not allowed.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(1024)
    except (OSError, OverflowError) as error:
        listener.close()
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise AddressInUseError(
                f"port {port} of {host} is in use: choose another --port, or 0 for a free one"
            ) from error
        raise InputError(f"cannot listen on {host} port {port}: {error}") from error
    return listener


class TrainerProcess:
    """The trainer as a child process, started again when it dies before the run has ended.

    Only one that dies again and again at the same place makes the run fail.

    Args:
        run: The run.
        num_threads: CPU threads of all its processes together; 0 means all cores.
        announce: Takes a line for the person who watches.
        num_procs: Processes that train together; 0 where torchrun starts them elsewhere.
        device: ``cpu`` or ``cuda``.
    """

    def __init__(
        self,
        run: RunContext,
        num_threads: int,
        announce: Callable[[str], None],
        *,
        num_procs: int = 1,
        device: str = "cpu",
    ) -> None:
        self._run, self._num_threads, self._announce = run, num_threads, announce
        self._num_procs, self._device = num_procs, device
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
        with (self._run.folder / TRAINER_LOG_NAME).open("ab") as log:
            return _popen(command, log)

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
                return
            num_deaths = num_deaths + 1 if mark == last_mark else 1
            last_mark = mark
            log_path = self._run.folder / TRAINER_LOG_NAME
            self._announce(f"the trainer ended with exit code {exit_code}; its log is {log_path}")
            if num_deaths > MAX_TRAINER_RESTARTS:
                break
            # At once after a first death, later after longer and longer waits.
            self._stopping.wait(0 if num_deaths == 1 else 2.0 ** (num_deaths - 2))
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


def _popen(command: list[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    # A session of its own: Ctrl-C reaches the server, which then ends the trainer in order.
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env={**_ALLOCATOR, **os.environ},
        start_new_session=True,
    )


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """End what a trainer that has ended has started: processes that train together go down together."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def serve_run(
    run: RunContext,
    listener: socket.socket,
    *,
    num_threads: int,
    num_procs: int,
    device: str,
    poll_seconds: float,
    announce: Callable[[str], None],
    on_ready: Callable[[str], None],
    tls: tuple[Path, Path] | None = None,
    classifier: FeatureClassifier | None = None,
) -> None:
    """Serve until interrupted.

    Args:
        run: The run.
        listener: The bound socket.
        num_threads: CPU threads of the trainer; 0 means all cores.
        num_procs: Processes of the trainer; 0 where torchrun starts them elsewhere.
        device: What it trains on, ``cpu`` or ``cuda``.
        poll_seconds: How often waiting devices ask again.
        announce: Takes a line for the person who watches.
        on_ready: Called with the URL once the server listens.
        tls: Certificate and key files (PEM); None for plain HTTP.
        classifier: What answers features; None for a server that does not.

    Raises:
        ConfigError: Certificate and key cannot be used.
        KeyboardInterrupt: Always, in the end.
    """
    host, port = listener.getsockname()[:2]
    scheme = "http" if tls is None else "https"
    url = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
    app = create_app(run, read_token(run.folder), poll_seconds=poll_seconds, classifier=classifier)
    server = WebServer(app, listener, tls=tls)
    trainer = TrainerProcess(run, num_threads, announce, num_procs=num_procs, device=device)
    info = {"url": url, "pid": os.getpid(), "run_id": run.store.run_id}
    info_path = run.folder / SERVER_INFO_NAME
    with lock_exclusively(
        run.folder / SERVER_LOCK_NAME,
        f"another gkt serve runs on {run.folder}: stop it, or choose another --data-dir",
    ):
        run.blobs.drop_incoming()
        _serve_until_interrupted(server, trainer, info_path, info, on_ready)


def _serve_until_interrupted(
    server: WebServer,
    trainer: TrainerProcess,
    info_path: Path,
    info: dict[str, Any],
    on_ready: Callable[[str], None],
) -> None:
    # In a thread of its own: a signal interrupts the waiting below, never the handling of a request, where
    # the interrupt could be swallowed.
    web = threading.Thread(target=server.run, name="web", daemon=True)
    try:
        trainer.start()
        web.start()
        write_atomically(info_path, (json.dumps(info) + "\n").encode())
        on_ready(info["url"])
        while web.is_alive():
            web.join(timeout=1.0)
        raise RunFailedError("the web server ended by itself")
    finally:
        info_path.unlink(missing_ok=True)
        trainer.stop()
        # Requests that are being handled may end; devices repeat the others.
        server.stop()
        web.join(timeout=_LAST_REQUESTS_SECONDS)
