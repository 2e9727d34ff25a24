"""Web servers beside each other (docs/adr/0009): CPU time of bodies, memory of a large one, stalled uploads.

All run one application (:mod:`profiling.server.web.body_server`) in processes of their own and take the
same bodies over the loopback interface, in turns. Ours reads bodies from gunicorn's sockets; the others
have their own reader.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from edge_runtime.machine.process_status import status_bytes
from gkt_core.errors import MissingExtraError, RunFailedError
from profiling.frame import Announce
from profiling.frame.processes import ProcessGroup, free_port, wait_until
from profiling.server.web.options import WebOptions
from profiling.server.web.process_cost import cpu_seconds, serving_processes
from profiling.server.web.target import Upload, Uploader
from profiling.server.web.turns import Candidate, bytes_per_cpu_second, remove_files

SERVERS = ("gkt", "gunicorn", "granian", "waitress")
NUM_STALLS = 6
# Fewer than stalls, so that a server whose threads wait for them has none left.
_FEW_THREADS, _MANY_THREADS = 4, 64
# gkt serve's own limit is 30 s: what is shown is that there is one.
_STALL_SECONDS = 2.0
_PATIENCE_SECONDS = 10.0
_START_SECONDS = 300.0
_BODY_BYTES = 4 << 20


def measure_servers(options: WebOptions, announce: Announce) -> dict[str, Any]:
    """Measure all of them.

    Returns:
        ``servers``: for each ``bytes_per_cpu_second`` (median of turns) with ``spread``, ``peak_bytes`` after
        small bodies, ``large_body_bytes``, by which the peak grew for a large one, and
        ``seventh_client_seconds`` beside six stalled uploads at four threads (null: no answer in 10 s).

    Raises:
        MissingExtraError: A server is not installed.
        RunFailedError: A server does not start, or refuses a body.
    """
    for name in SERVERS[1:]:
        if importlib.util.find_spec(name) is None:
            raise MissingExtraError.for_module(name, "dev")
    uploads = [Upload(index, _body(index), "") for index in range(options.bodies)]
    with tempfile.TemporaryDirectory(prefix="gkt-servers-") as temporary, contextlib.ExitStack() as stack:
        folders = {name: Path(temporary) / name for name in SERVERS}
        running = {}
        for name, folder in folders.items():
            announce(f"starting {name}")
            running[name] = stack.enter_context(_running(name, folder, _MANY_THREADS))
        candidates = {name: _candidate(*running[name], folders[name]) for name in SERVERS}
        rates = bytes_per_cpu_second(candidates, options.turns, lambda turn: uploads, announce)
        servers = {name: _memory(*running[name], folders[name], options.large_mb << 20) for name in SERVERS}
    for name in SERVERS:
        announce(f"{name}: stalled uploads")
        with tempfile.TemporaryDirectory(prefix="gkt-servers-") as temporary:
            seconds = _seventh_client(name, Path(temporary) / name)
        servers[name] |= {
            "bytes_per_cpu_second": rates[name]["median"],
            "spread": rates[name]["spread"],
            "seventh_client_seconds": seconds,
        }
    return {
        "servers": servers,
        "versions": {name: version(name) for name in SERVERS[1:]},
        "settings": {"body_bytes": _BODY_BYTES, "large_body_bytes": options.large_mb << 20},
    }


def _body(index: int) -> bytes:
    values = np.random.default_rng(index).standard_normal(_BODY_BYTES // 4, dtype=np.float32)
    return np.maximum(values, 0).tobytes()


@contextlib.contextmanager
def _running(name: str, folder: Path, num_threads: int) -> Iterator[tuple[int, int]]:
    """A server's process id and port; it ends with the block."""
    folder.mkdir()
    port = free_port()
    arguments = [name, port, folder, num_threads, _STALL_SECONDS]
    with ProcessGroup() as processes:
        server = processes.start(
            name,
            [str(each) for each in arguments],
            log=folder.with_suffix(".log"),
            module="profiling.server.web.body_server",
        )

        def answers() -> bool:
            if server.exit_code is not None:
                raise server.failure()
            with contextlib.suppress(OSError, http.client.HTTPException, RunFailedError):
                uploader = Uploader(port)
                uploader.put("/first", b"")
                uploader.close()
                return True
            return False

        try:
            wait_until(answers, _START_SECONDS, lambda: f"{name} does not answer (log: {server.log})")
            yield server.process.pid, port
        finally:
            # With its workers, none of which would end while an upload stalls.
            server.kill_all()


def _candidate(pid: int, port: int, folder: Path) -> Candidate:
    def take(uploads: Sequence[Upload]) -> None:
        # Some servers hang up on who is silent for a turn.
        with contextlib.closing(Uploader(port)) as uploader:
            uploader.take(uploads)

    return Candidate(take, lambda: cpu_seconds(pid), folder)


def _memory(pid: int, port: int, folder: Path, num_bytes: int) -> dict[str, Any]:
    """Peak memory before and because of one large body, which is made while it is sent."""
    before = _peak_bytes(pid)
    piece = _body(0)[: 1 << 20]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    pieces = (piece for _ in range(num_bytes // len(piece)))
    connection.request("PUT", "/large", pieces, {"Content-Length": str(num_bytes)})
    status = connection.getresponse().status
    connection.close()
    if status != 200 or (folder / "large").stat().st_size != num_bytes:
        raise RunFailedError(f"a body of {num_bytes} bytes was answered {status}")
    after = _peak_bytes(pid)
    remove_files(folder)
    return {"peak_bytes": before, "large_body_bytes": after - before}


def _peak_bytes(pid: int) -> int:
    """The most memory that each of the processes has had (VmHWM), added."""
    total = 0
    for process in serving_processes(pid):
        total += status_bytes("VmHWM", process.pid) or 0
    return total


def _seventh_client(name: str, folder: Path) -> float | None:
    """How long a client waits beside uploads that have stalled; None if nobody answered."""
    with _running(name, folder, _FEW_THREADS) as (_, port), contextlib.ExitStack() as stack:
        head = f"PUT /stalled HTTP/1.1\r\nHost: x\r\nContent-Length: {_BODY_BYTES}\r\n\r\n".encode()
        for _ in range(NUM_STALLS):
            peer = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            peer.sendall(head + bytes(100_000))
        # Whatever it gives them, it has given them by then.
        time.sleep(0.5)
        begin = time.monotonic()
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE_SECONDS)
        stack.callback(client.close)
        client.request("PUT", "/seventh", b"abcd")
        try:
            client.getresponse().read()
        except TimeoutError:
            return None
        return time.monotonic() - begin
