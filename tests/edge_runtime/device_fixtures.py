"""A server in this process for devices in processes of their own, which may be stopped anywhere."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
from werkzeug.serving import make_server

from edge_runtime.device import Device
from edge_runtime.server_client import ServerClient
from edge_runtime.state.state_dir import StateDir
from gkt_core.data.private_data import load_private_data
from server_app import create_app, create_run
from tests.conftest import LONGEST_SECONDS
from tests.edge_runtime.in_thread import answering
from tests.server_app.server_fixtures import TOKEN, run_config

GKT = [sys.executable, "-m", "gkt_core.cli"]


class StoppedError(Exception):
    """A device was stopped by its test."""


class Served:
    """A run of one device, without a trainer: a device that has reported waits.

    Args:
        bundle: Folder of the artifacts.
        folder: Of the run.
        changes: Of its settings.
    """

    def __init__(self, bundle: Path, folder: Path, **changes: Any) -> None:
        config = run_config(num_clients=1, rounds=1, **changes)
        self.run = create_run(folder, bundle, config, TOKEN)
        self.app = create_app(self.run, TOKEN, poll_seconds=0.05)
        self.url = ""

    @contextlib.contextmanager
    def listening(self) -> Iterator[Served]:
        """Answer on a port of this machine."""
        server = make_server("127.0.0.1", 0, self.app, threaded=True)
        with contextlib.closing(self.run.store), answering(server) as port:
            self.url = f"http://127.0.0.1:{port}"
            yield self

    @property
    def has_report(self) -> bool:
        """Whether the device has closed its part of the round."""
        return bool(self.run.store.state().reported)


class Silent:
    """Hears nothing."""

    def phase(self, name: str, round_num: int, num_images: int, reason: str = "") -> None: ...

    def images(self, num_images: int) -> None: ...

    def note(self, line: str) -> None: ...


def command(served: Served, data: Path, state_dir: Path, *options: str) -> list[str]:
    """``gkt edge run`` for this server, saving after every step."""
    begin = [*GKT, "edge", "run", "--server", served.url, "--token", TOKEN]
    return [
        *begin, "--data", str(data), "--client-id", data.stem, "--state-dir", str(state_dir),
        "--checkpoint-seconds", "0",
        "--patience-seconds", str(LONGEST_SECONDS), *options,
    ]  # fmt: skip


@contextlib.contextmanager
def process(arguments: list[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A device that does not outlive the block."""
    device = subprocess.Popen(
        arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **options
    )
    try:
        yield device
    finally:
        device.kill()
        device.communicate()


def wait_until(condition: Callable[[], bool], device: subprocess.Popen[str]) -> None:
    """Until the condition holds; fails when the device ends before."""
    deadline = time.monotonic() + LONGEST_SECONDS
    while not condition():
        assert device.poll() is None, device.stderr and device.stderr.read()
        assert time.monotonic() < deadline, "the device took too long"
        time.sleep(0.01)


def take_part(
    served: Served,
    data: Path,
    state_dir: Path,
    *,
    client: Callable[..., ServerClient] = ServerClient,
    **options: Any,
) -> None:
    """A device in this process, until it has reported."""

    def stop(seconds: float) -> None:
        raise StoppedError

    wire = httpx.WSGITransport(app=served.app)
    server = client("http://server", TOKEN, transport=wire, patience_seconds=0)
    folder = StateDir(state_dir)
    try:
        with contextlib.suppress(StoppedError):
            Device(
                server,
                load_private_data(data),
                folder,
                client_id=data.stem,
                num_threads=1,
                listener=options.pop("listener", Silent()),
                sleep=stop,
                **options,
            ).run()
    finally:
        server.close()
        folder.close()


def copy_run(folder: Path, target: Path) -> Path:
    """A run that nobody joined, again, with the same id."""
    shutil.copytree(folder, target)
    return target


def environment(**changes: str) -> dict[str, str]:
    """This process's environment with changes."""
    return {**os.environ, **changes}
