"""A real ``gkt serve`` beside crowds of silent, trickling and unreading peers, and one honest device."""

from __future__ import annotations

import contextlib
import json
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import httpx
import psutil

from edge_export import ExportOptions, export_bundle
from edge_runtime.server_client import ServerClient
from gkt_core.bundle.manifest import DEVICE_FILES, Manifest
from gkt_core.config.run_config import RunConfig
from gkt_core.errors import RunFailedError
from gkt_core.wire import paths
from gkt_core.wire.paths import fill
from gkt_core.wire.protocol import PROTOCOL_VERSION, SHA256_HEADER, JoinRequest, Task
from profiling.frame import Announce
from profiling.frame.processes import ProcessGroup, arguments, free_port, wait_for_server, wait_until
from profiling.server.load.light_device import LightDevice
from profiling.server.peers.options import PeersOptions
from server_app.members.inviting import enrolled
from server_app.own_certificate import names_of_this_machine, own_certificate
from server_app.run_folder import RunContext, create_run

_PAGE_FILES = list((resources.files("server_app.web") / "static" / "join").iterdir())
_HONEST, _HOSTILE = "honest", "hostile"
_NUM_EXAMPLES, _NUM_VALIDATION = 8, 2
_START_SECONDS = 120.0
# The hostile device has joined and reports nothing: a round goes on without it after so long.
_DEADLINE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Manner:
    """What a crowd says.

    Attributes:
        name: ``silent``, ``trickling``, or ``unreading``: they ask for a file and read nothing of it.
        has_credential: Whether it shows the secret of a device of the run, or never gets so far.
    """

    name: str
    has_credential: bool


MANNERS = tuple(
    Manner(name, known) for known in (False, True) for name in ("silent", "trickling", "unreading")
)


def measure_peers(options: PeersOptions, announce: Announce) -> dict[str, Any]:
    """Export a bundle and let all crowds come, over plain http and https, in a temporary folder.

    Raises:
        RunFailedError: The server ended by itself, or the honest device was refused.
    """
    with tempfile.TemporaryDirectory(prefix="gkt-peers-") as name:
        folder = Path(name)
        announce("exporting a bundle")
        export_bundle(ExportOptions(image_size=8), folder / "artifacts", verify="none")
        crowds = [
            each
            for tls in (False, True)
            for each in beside_crowds(options, folder / "artifacts", folder / f"tls-{tls}", announce, tls=tls)
        ]
    return {"crowds": crowds}


def beside_crowds(
    options: PeersOptions, artifacts: Path, out: Path, announce: Announce, *, tls: bool
) -> list[dict[str, Any]]:
    """Let all crowds come to one server.

    Args:
        options: Which.
        artifacts: Bundle of ``gkt export``.
        out: A new folder.
        announce: Told what happens now.
        tls: Whether it serves https, with a certificate of its own.

    Returns:
        For each crowd ``peers``, ``tls``, ``manner``, ``credential``, ``longest_request_seconds``,
        ``median_request_seconds``, ``round_seconds``, and ``threads`` and ``descriptors`` of the server.

    Raises:
        RunFailedError: The server ended by itself, the honest device was refused, or a round took too long.
    """
    scenarios = [(num, manner) for num in options.crowds for manner in MANNERS]
    config = RunConfig(
        num_clients=2, rounds=len(scenarios), server_epochs=1, crop_padding=0, horizontal_flip=False,
        codec="uint8", shard_samples=4, quarantine=False,
    )  # fmt: skip
    run = create_run(out / "server", artifacts, config)
    port, data_dir = free_port(), (out / "server").absolute()
    words = arguments(
        "serve", data_dir=data_dir, port=port, threads=1, poll_seconds=0.2, min_clients=1,
        round_deadline=_DEADLINE_SECONDS,
    )  # fmt: skip
    if tls:
        own_certificate(data_dir, names_of_this_machine("127.0.0.1"))
        words += ["--tls-cert", str(data_dir / "server.pem"), "--tls-key", str(data_dir / "server.key")]
    with contextlib.closing(run.store), ProcessGroup(out) as processes:
        server = processes.start("gkt serve", words, log=out / "server.log")
        info = wait_for_server(server, run.folder)
        honest = _Honest(run, info["url"], data_dir / "authority.pem" if tls else None)
        wait_until(lambda: run.store.progress()[1] > 0, _START_SECONDS, lambda: "the trainer does not start")
        measured = []
        for num, manner in scenarios:
            announce(f"{num} {manner.name} peers, {'https' if tls else 'http'}, {_who(manner)}")
            with _crowd(port, num, manner, honest.hostile_heads(), honest.authority if tls else None):
                seconds = honest.requests(options.num_requests)
                process = psutil.Process(info["pid"])
                held = {"threads": process.num_threads(), "descriptors": process.num_fds()}
                round_seconds = honest.round(options.limit_seconds)
            server.check()
            measured.append(
                {
                    "peers": num,
                    "tls": tls,
                    "manner": manner.name,
                    "credential": manner.has_credential,
                    "longest_request_seconds": max(seconds),
                    "median_request_seconds": sorted(seconds)[len(seconds) // 2],
                    "round_seconds": round_seconds,
                    **held,
                }
            )
        return measured


def _who(manner: Manner) -> str:
    return "with a device's secret" if manner.has_credential else "without one"


class _Honest:
    """The one device that means it; it and the hostile one have joined."""

    def __init__(self, run: RunContext, url: str, authority: Path | None) -> None:
        self._run, self._url, self.authority = run, url, authority
        self._context = ssl.create_default_context(cafile=None if authority is None else str(authority))
        bearers = {client_id: enrolled(self._run, client_id) for client_id in (_HONEST, _HOSTILE)}
        self._token, self._hostile = bearers[_HONEST], bearers[_HOSTILE]
        self._device = LightDevice(
            url, self._token, _HONEST, 0, _NUM_EXAMPLES, _NUM_VALIDATION, threading.Barrier(1),
            lambda round_num: None, threading.Event(),
        )  # fmt: skip
        self._manifest = Manifest.from_dict(run.bundle.manifest.to_dict())
        join = JoinRequest(
            PROTOCOL_VERSION, _NUM_EXAMPLES, _NUM_VALIDATION, self._manifest.num_classes, "peers"
        )
        for client_id, token in bearers.items():
            with self._server(token) as server:
                server.join(client_id, join)

    def hostile_heads(self) -> tuple[str, str, str]:
        """Heads of a hostile device's upload, of a public file, and of the largest of the bundle."""
        run = fill(paths.RUN, run_id=self._run.store.run_id)
        path = run + fill(paths.SHARD, round_num=1, client_id=_HOSTILE, split="train", index=0)
        shows = f"Host: x\r\nAuthorization: Bearer {self._hostile}\r\n"
        largest = max(DEVICE_FILES, key=lambda name: self._run.bundle.file(name).stat().st_size)
        (page,) = (each for each in _PAGE_FILES if each.name.endswith(".wasm.gz"))
        public = fill(paths.JOIN_FILE, file=page.name.removesuffix(".gz"))
        return (
            f"PUT {path} HTTP/1.1\r\n{shows}{SHA256_HEADER}: {'0' * 64}\r\nContent-Length: 4000\r\n\r\n",
            f"GET {public} HTTP/1.1\r\nHost: x\r\nAccept-Encoding: identity\r\n\r\n",
            f"GET {run}{fill(paths.ARTIFACT, name=largest)} HTTP/1.1\r\n{shows}\r\n",
        )

    def requests(self, num: int) -> list[float]:
        """Come so often over a new connection, ask for the run and the task, and say how long each took."""
        return [self._timed(self._ask) for _ in range(num)]

    def round(self, limit_seconds: float) -> float:
        """Take part in the round that is open, and wait until it was trained; how long that took.

        Raises:
            RunFailedError: It took too long.
        """
        return self._timed(lambda: self._take_part(limit_seconds))

    def _take_part(self, limit_seconds: float) -> None:
        deadline = time.monotonic() + limit_seconds
        with self._server(self._token) as server:
            task = server.task(_HONEST)
            while task.action == "wait":
                self._pause(deadline, task)
                task = server.task(_HONEST)
            round_num = task.round_num
            self._device.take_round(server, self._run.config, self._manifest, task)
            while self._run.store.state().round_num == round_num and not self._is_finished():
                self._pause(deadline, task)

    def _is_finished(self) -> bool:
        return str(self._run.store.state().phase) in ("finished", "failed")

    def _pause(self, deadline: float, task: Task) -> None:
        if time.monotonic() > deadline:
            raise RunFailedError(f"round {task.round_num} did not end: the run is {self._run.store.state()}")
        time.sleep(0.05)

    def _ask(self) -> None:
        with self._server(self._token) as server:
            server.task(_HONEST)

    @contextlib.contextmanager
    def _server(self, token: str) -> Iterator[ServerClient]:
        transport = httpx.HTTPTransport(verify=self._context)
        server = ServerClient(self._url, token, transport=transport)
        with contextlib.closing(server):
            server.run_info()
            yield server

    @staticmethod
    def _timed(call: Callable[[], object]) -> float:
        began = time.perf_counter()
        call()
        return time.perf_counter() - began


@contextlib.contextmanager
def _crowd(
    port: int, num: int, manner: Manner, heads: tuple[str, str, str], authority: Path | None
) -> Iterator[None]:
    """Peers that are there while the block runs."""
    is_silent, is_known, reads = manner.name == "silent", manner.has_credential, manner.name != "unreading"
    upload, public, bundle = heads
    first, trickle = upload if is_known else "", ""
    if manner.name == "trickling":
        trickle = "x" if is_known else "GET / HTTP/1.1\r\nX: " + "x" * 4000
    elif not reads:
        first = bundle if is_known else public
    settings = {
        "port": port,
        "num": num,
        # Who says nothing at all shakes no hands either.
        "certificate": "" if authority is None or (is_silent and not is_known) else str(authority),
        "first": first,
        "trickle": trickle,
        "reads": reads,
    }
    command = [sys.executable, "-m", "profiling.server.peers.crowd"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(json.dumps(settings) + "\n")
            process.stdin.flush()
            if not process.stdout.readline():
                raise RunFailedError(f"the crowd ended with exit code {process.wait()}")
            yield
        finally:
            process.kill()
