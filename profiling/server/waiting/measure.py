"""A real ``gkt serve`` at which devices wait for the last one to join, and what that costs both."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from edge_export import ExportOptions, export_bundle
from edge_runtime.server_client import ServerClient
from edge_runtime.turn import next_task
from gkt_core.config.run_config import RunConfig
from gkt_core.data.private_data import PrivateData, Samples, save_private_data
from gkt_core.errors import RunFailedError
from gkt_core.wire.protocol import PROTOCOL_VERSION, JoinRequest
from profiling.frame import Announce
from profiling.frame.processes import ProcessGroup, arguments, free_port, wait_for_server, wait_until
from profiling.server.waiting.options import WaitingOptions
from profiling.server.waiting.watchers import small_answers, watched
from profiling.server.web.process_cost import cpu_seconds
from server_app.members.inviting import enrolled
from server_app.run_folder import RunContext, create_run, operator_bearer

_NUM_TRAIN, _NUM_VALIDATION, _NUM_CLASSES = 8, 2, 10
_CLASS_NAMES = tuple(str(number) for number in range(_NUM_CLASSES))
_LONG_SECONDS = 300.0
# What joining leaves to do is over by then.
_CALM_SECONDS = 3.0


def measure_waiting(options: WaitingOptions, announce: Announce) -> dict[str, Any]:
    """Export a bundle, let devices wait, and give them their turn; in a temporary folder.

    Raises:
        RunFailedError: The server or a device ended by itself.
    """
    with tempfile.TemporaryDirectory(prefix="gkt-waiting-") as name:
        folder = Path(name)
        announce("exporting a bundle")
        artifacts = folder / "artifacts"
        export_bundle(
            ExportOptions(image_size=options.image_size, num_classes=_NUM_CLASSES), artifacts, verify="none"
        )
        config = RunConfig(num_clients=options.num_devices + 1, rounds=1, crop_padding=0, codec="uint8")
        run = create_run(folder / "server", artifacts, config)
        save_private_data(folder / "real.npz", _data(options.image_size))
        with contextlib.closing(run.store), ProcessGroup(folder) as processes:
            return _waited(options, run, folder, processes, announce)


@dataclass(slots=True)
class _Waiter:
    """A device that asks as a real one does, and trains nothing.

    Attributes:
        url: The server's.
        run: Whose run.
        client_id: Its name.
        stopping: Set when nobody waits any more.
        num_requests: Questions so far.
        heard_at: When it was told to train, on the monotonic clock.
    """

    url: str
    run: RunContext
    client_id: str
    stopping: threading.Event
    num_requests: int = field(default=0, init=False)
    heard_at: float = field(default=0.0, init=False)

    def wait(self) -> None:
        server = self.join()
        try:
            while not self.stopping.is_set():
                self.num_requests += 1
                if next_task(server, self.client_id, self._pause).action != "wait":
                    self.heard_at = time.monotonic()
                    return
        finally:
            server.close()

    def _pause(self, seconds: float) -> None:
        self.stopping.wait(seconds)

    def join(self) -> ServerClient:
        server = ServerClient(self.url, enrolled(self.run, self.client_id))
        server.find_run()
        request = JoinRequest(PROTOCOL_VERSION, _NUM_TRAIN, _NUM_VALIDATION, _NUM_CLASSES, "waiting")
        server.join(self.client_id, request)
        return server


def _waited(
    options: WaitingOptions, run: RunContext, folder: Path, processes: ProcessGroup, announce: Announce
) -> dict[str, Any]:
    words = arguments("serve", data_dir=run.folder.absolute(), port=free_port(), threads=1)
    server = processes.start("gkt serve", words, log=folder / "server.log")
    info = wait_for_server(server, run.folder)
    words = arguments(
        "edge run",
        join=run.folder / "join",
        data=folder / "real.npz",
        state_dir=folder / "device",
        client_id="real",
        threads=1,
    )
    real = processes.start("gkt edge run", words, log=folder / "device.log")
    stopping = threading.Event()
    waiters = [
        _Waiter(info["url"], run, f"device-{number:04d}", stopping)
        for number in range(options.num_devices - 1)
    ]
    with ThreadPoolExecutor(len(waiters)) as threads:
        running = [threads.submit(each.wait) for each in waiters]
        try:
            wait_until(
                lambda: len(run.store.state().clients) == options.num_devices or real.exit_code is not None,
                _LONG_SECONDS,
                lambda: "the devices did not join",
            )
            time.sleep(_CALM_SECONDS)
            announce(f"{options.num_devices} devices wait for {options.seconds:g} s")
            assert real.process is not None
            device = psutil.Process(real.process.pid)
            alone = _shares(info["pid"], device, options.seconds)
            num_requests = sum(each.num_requests for each in waiters)
            announce(f"{options.num_pages} pages are open, gkt status and Prometheus look as well")
            bearer = operator_bearer(run.folder)
            with watched(info["url"], bearer, run.store.run_id, options.num_pages) as looks:
                time.sleep(_CALM_SECONDS)
                watching = _shares(info["pid"], device, options.seconds)
            answers = small_answers(info["url"], options.answers)
            server.check()
            _Waiter(info["url"], run, "last", stopping).join().close()
            turn_at = time.monotonic()
            wait_until(
                lambda: all(each.done() for each in running), _LONG_SECONDS, lambda: "no device had its turn"
            )
        finally:
            stopping.set()
    for each in running:
        each.result()
    heard = [each.heard_at - turn_at for each in waiters]
    if len(heard) != options.num_devices - 1:
        raise RunFailedError("a device had no turn")
    return {
        "server_share": alone[0],
        "device_share": alone[1],
        "watched_share": watching[0] - alone[0],
        "num_looks": sum(looks),
        "answer_seconds": {"median": statistics.median(answers), "p95": answers[len(answers) * 95 // 100]},
        "heard_seconds": {"median": max(0.0, statistics.median(heard)), "last": max(0.0, *heard, 0.0)},
        "num_requests": num_requests,
    }


def _shares(pid: int, device: psutil.Process, seconds: float) -> tuple[float, float]:
    """Wait, and say which share of a core the server's process and the device took meanwhile."""
    before = time.monotonic(), cpu_seconds(pid), _own_seconds(device)
    time.sleep(seconds)
    after = time.monotonic(), cpu_seconds(pid), _own_seconds(device)
    took = after[0] - before[0]
    return (after[1] - before[1]) / took, (after[2] - before[2]) / took


def _own_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _data(image_size: int) -> PrivateData:
    rng = np.random.default_rng(0)

    def samples(num: int, first_id: int) -> Samples:
        images = rng.integers(0, 256, (num, image_size, image_size, 3), dtype=np.uint8)
        return Samples(images, rng.integers(0, _NUM_CLASSES, num), first_id + np.arange(num))

    return PrivateData(samples(_NUM_TRAIN, 0), samples(_NUM_VALIDATION, 100), _CLASS_NAMES)
