"""``gkt serve`` and ``gkt edge run`` as processes, for tests of what they do together."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from gkt_core.wire.protocol import RunStatus, from_json
from tests.conftest import LONGEST_SECONDS, ROOT
from tests.house.make_before import SMALL_SERVER
from tests.server_app.waiting import until

StartServer = Callable[..., "Serve"]
# Settings of a run of :class:`SmallFederation` that takes seconds.
SMALL = (
    "--server-epochs", "2", "--server-batch-size", "8", "--batch-size", "4", "--shard-samples", "8",
    "--crop-padding", "1",
)  # fmt: skip


def is_gone(process: psutil.Process) -> bool:
    """Whether a process has ended; one that nobody waited for has, too."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


@dataclass(frozen=True)
class DeviceProcess:
    """A device that takes part, and what it writes."""

    process: subprocess.Popen[bytes]
    log: Path

    def ended(self) -> int:
        """Its exit code, once it has ended."""
        return self.process.wait(timeout=LONGEST_SECONDS)


class Serve:
    """One ``gkt serve``, once it listens."""

    def __init__(self, folder: Path, data_dir: Path, *options: object) -> None:
        folder.mkdir()
        self.devices: list[subprocess.Popen[bytes]] = []
        self.data_dir, self.out, self.err = data_dir, folder / "stdout", folder / "stderr"
        command = [sys.executable, "-m", "gkt_core.cli", "serve", "--data-dir", str(data_dir)]
        environment = {name: value for name, value in os.environ.items() if name != "GKT_TOKEN"}
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [*command, "--port", "0", "--threads", "1", *map(str, options)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=folder,
                env=environment,
            )
        try:
            self.info: dict[str, str] = json.loads(until(self._written, "server.json"))
        except BaseException:
            self.process.kill()
            raise

    def _written(self) -> str:
        assert self.process.poll() is None, self.err.read_text()
        path = self.data_dir / "server.json"
        # One that a killed server left names another process.
        text = path.read_text() if path.is_file() else ""
        return text if text and json.loads(text)["pid"] == self.process.pid else ""

    def wait_for(self, path: Path, words: str) -> str:
        """All that a file holds, once it holds these words."""
        return until(lambda: (text := path.read_text()) and (text if words in text else ""), words)

    def trainer(self, other_than: psutil.Process | None = None) -> psutil.Process:
        """The trainer process, once it is there."""

        def find() -> psutil.Process | None:
            with contextlib.suppress(psutil.NoSuchProcess):
                for child in psutil.Process(self.process.pid).children():
                    if "server_app.trainer" in child.cmdline() and child != other_than and not is_gone(child):
                        return child
            return None

        process = until(find, "the start of a trainer")
        assert process is not None
        return process

    def get(self, path: str, **headers: str) -> httpx.Response:
        with httpx.Client(trust_env=False, timeout=LONGEST_SECONDS) as http:
            return http.get(self.info["url"] + path, headers=headers)

    def status(self) -> RunStatus:
        root = f"/v1/runs/{self.info['run_id']}"
        return from_json(
            RunStatus, self.get(f"{root}/status", Authorization=f"Bearer {self.token()}").content
        )

    def device(self, data: Path, state_dir: Path, *options: object) -> DeviceProcess:
        """A real device, called like its data, which takes part beside whatever else is done."""
        command = [sys.executable, "-m", "gkt_core.cli", "edge", "run", "--server", self.info["url"]]
        command += ["--token", self.token(), "--data", str(data), "--state-dir", str(state_dir)]
        command += ["--client-id", data.stem, "--threads", "1"]
        log = state_dir.with_suffix(".log")
        with log.open("ab") as stream:
            process = subprocess.Popen(
                [*command, *map(str, options)], stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
            )
        self.devices.append(process)
        return DeviceProcess(process, log)

    def token(self) -> str:
        return (self.data_dir / "token").read_text().strip()

    def end(self, number: int = signal.SIGTERM) -> int:
        """Stop it, and return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=LONGEST_SECONDS)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Serve]]:
    """Starts ``gkt serve`` on a free port of the loopback address; nothing survives the test."""
    started: list[Serve] = []

    def start(*options: object) -> Serve:
        started.append(Serve(tmp_path / f"process-{len(started)}", tmp_path / "run", *options))
        return started[-1]

    yield start
    for device in (device for each in started for device in each.devices):
        device.kill()
        device.wait()
    for each in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in psutil.Process(each.process.pid).children(recursive=True):
                process.kill()
        each.process.kill()
        each.process.wait()


@dataclass(frozen=True)
class SmallFederation:
    """A bundle with a server network of a thousand weights, and the data of two devices.

    Of an earlier version (tests/house/make_before.py).
    """

    folder: Path

    @property
    def bundle(self) -> Path:
        return self.folder / "bundle"

    def data(self, number: int) -> Path:
        return self.folder / "split" / "clients" / f"client-{number:03d}.npz"


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallFederation:
    """In a folder of its own; processes that the test starts know its server network."""
    with tarfile.open(ROOT / "tests" / "house" / "before.tar.xz") as archive:
        archive.extractall(tmp_path / "small", filter="data")
    monkeypatch.setenv("PYTHONPATH", str(SMALL_SERVER))
    return SmallFederation(tmp_path / "small")
