"""Whole runs in one process: two real devices, the application without a socket, and the real trainer."""

import contextlib
import dataclasses
import functools
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
from flask import Flask

from edge_runtime.device import Device, DeviceResult
from edge_runtime.server_client import ServerClient
from edge_runtime.state.state_dir import StateDir
from gkt_core.errors import RoundError, RunFailedError
from gkt_core.wire.protocol import Task, from_json
from server_app import RunContext, create_app, open_run
from server_app.rounds.state import Failed, Phase, RunState
from server_app.run_folder import SERVER_WEIGHTS_BLOB
from server_app.trainer.trainer import Trainer
from tests.server_app.server_fixtures import CLIENTS, TOKEN, private_data
from tests.server_app.waiting import until

DATA = {client_id: private_data(seed, 12 + 3 * seed) for seed, client_id in enumerate(CLIENTS)}
WAIT_SECONDS = 0.005

# Called before and after each request of a device, with "before" or "after" and the request.
Cut = Callable[[str, str], object]
Train = Callable[[RunContext], RunState]


class Killed(BaseException):
    """What ends a process at once: no error handling of ours may see it."""


class Silent:
    """A listener that shows nothing."""

    def phase(self, name: str, round_num: int, num_images: int, reason: str = "") -> None:
        pass

    def images(self, num_images: int) -> None:
        pass

    def note(self, line: str) -> None:
        pass


@dataclasses.dataclass(frozen=True)
class Exchange:
    """One request and its answer."""

    method: str
    path: str
    headers: Mapping[str, str]
    sent: bytes
    status: int
    received: bytes


class Wire(httpx.BaseTransport):
    """The application without a socket; keeps what passes, and may be cut."""

    def __init__(self, app: Flask, passed: list[Exchange], cut: Cut) -> None:
        self._app, self._passed, self._cut = httpx.WSGITransport(app=app), passed, cut

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        method, path = request.method, request.url.path
        self._cut("before", f"{method} {path}")
        response = self._app.handle_request(request)
        received = response.read()
        headers = dict(request.headers)
        self._passed.append(Exchange(method, path, headers, request.content, response.status_code, received))
        self._cut("after", f"{method} {path}")
        return response


def undisturbed_trainer(run: RunContext) -> RunState:
    return Trainer(run).run_until_done()


class RunOfTwo:
    """A run, its devices' folders and everything that went over the wire."""

    def __init__(self, folder: Path, devices_folder: Path) -> None:
        self.run, self.devices = open_run(folder), devices_folder
        self.app = create_app(self.run, TOKEN, poll_seconds=0.01)
        self.exchanges: dict[str, list[Exchange]] = {client_id: [] for client_id in CLIENTS}
        self.counted: dict[str, tuple[int, int]] = {}

    def device(self, client_id: str, cut: Cut = lambda when, call: None) -> DeviceResult:
        """Take part as this device does, in a process that ends with the call."""
        folder = StateDir(self.devices / client_id)
        wire = Wire(self.app, self.exchanges[client_id], cut)
        server = ServerClient("http://server", TOKEN, transport=wire, patience_seconds=0)
        try:
            return Device(
                server,
                DATA[client_id],
                folder,
                client_id=client_id,
                num_threads=1,
                listener=Silent(),
                sleep=lambda seconds: time.sleep(WAIT_SECONDS),
            ).run()
        finally:
            sent, received = self.counted.get(client_id, (0, 0))
            self.counted[client_id] = (sent + server.upload_bytes, received + server.download_bytes)
            server.close()
            folder.close()

    def together(
        self, *devices: Callable[[], Any], train: Train = undisturbed_trainer
    ) -> tuple[RunState, list[Any]]:
        """Run devices in threads and the trainer in this one, until all have ended.

        Returns:
            The last state, and what the devices gave.
        """

        def guarded(device: Callable[[], Any]) -> Any:
            try:
                return device()
            except BaseException as error:
                # Else the trainer would wait for ever.
                with contextlib.suppress(RoundError):
                    self.run.store.apply(Failed(f"a device ended: {error!r}"))
                raise

        with ThreadPoolExecutor(len(devices)) as threads:
            results = [threads.submit(guarded, device) for device in devices]
            try:
                state = train(self.run)
            except BaseException as error:
                with contextlib.suppress(RoundError):
                    self.run.store.apply(Failed(f"the trainer ended: {error!r}"))
                raise
            finally:
                problems = [problem for result in results if (problem := result.exception()) is not None]
                for problem in problems:
                    # Says more than that the run failed, unless it is what the device was told.
                    if not isinstance(problem, RunFailedError):
                        raise problem
        for problem in problems:
            raise problem
        assert state.error == ""
        return state, [result.result() for result in results]

    def train(self, train: Train = undisturbed_trainer) -> tuple[RunState, list[DeviceResult]]:
        return self.together(*(functools.partial(self.device, each) for each in CLIENTS), train=train)

    def outcome(self) -> tuple[bytes, bytes]:
        """Everything that a run leaves behind."""
        checkpoint = self.run.checkpoint_path(self.run.config.rounds).read_bytes()
        weights = self.run.blobs.local_path(SERVER_WEIGHTS_BLOB).read_bytes()
        return checkpoint, weights

    def models(self) -> list[bytes]:
        return [(self.devices / client_id / "model.onnx").read_bytes() for client_id in CLIENTS]


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """A run that nothing has disturbed, and what it gave: the others are compared with it."""

    of: RunOfTwo
    state: RunState
    results: list[DeviceResult]

    def uploads(self, pattern: str) -> list[Exchange]:
        """The PUTs to paths of this pattern, device by device."""
        return [
            each
            for client_id in CLIENTS
            for each in self.of.exchanges[client_id]
            if each.method == "PUT" and re.fullmatch(pattern, each.path)
        ]

    def replay(
        self, target: RunOfTwo, order: Callable[[Sequence[Exchange]], Sequence[Exchange]] = list
    ) -> Callable[[], None]:
        """What sends these uploads once more to another run, in another order."""
        joins, uploads = self.uploads(r".*/clients/[^/]+"), self.uploads(r".*/rounds/.*")
        task = f"/v1/runs/{target.run.store.run_id}/clients/{CLIENTS[0]}/task"

        def send() -> None:
            transport = httpx.WSGITransport(app=target.app)
            with httpx.Client(transport=transport, base_url="http://server") as http:
                http.headers["Authorization"] = f"Bearer {TOKEN}"
                for each in order(joins):
                    http.put(each.path, content=each.sent).raise_for_status()
                for round_num in (1, 2):

                    def is_open(round_num: int = round_num) -> bool:
                        state = target.run.store.state()
                        told = from_json(Task, http.get(task).content).round_num == round_num
                        return state.phase is Phase.FAILED or (told and state.phase is Phase.COLLECTING)

                    until(is_open, f"the beginning of round {round_num}", WAIT_SECONDS)
                    parts = order([each for each in uploads if f"/rounds/{round_num}/" in each.path])
                    # A device's report comes behind its shards in any order.
                    for each in sorted(parts, key=lambda each: each.path.endswith("/report")):
                        kept = ("x-content-sha256", "content-encoding")
                        headers = {name: value for name, value in each.headers.items() if name in kept}
                        http.put(each.path, content=each.sent, headers=headers).raise_for_status()

        return send
