"""``gkt serve`` and ``gkt edge run`` as processes, for tests of what they do together."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
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

from gkt_core import networks
from gkt_core.wire.protocol import RunStatus, from_json
from server_app.run_folder import operator_bearer
from tests.conftest import LONGEST_SECONDS, ROOT, shared_folder
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
        self.trainers: list[psutil.Process] = []
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
        self.trainers.append(process)
        return process

    def get(self, path: str, **headers: str) -> httpx.Response:
        with httpx.Client(trust_env=False, timeout=LONGEST_SECONDS) as http:
            return http.get(self.info["url"] + path, headers=headers)

    def status(self) -> RunStatus:
        root = f"/v1/runs/{self.info['run_id']}"
        return from_json(
            RunStatus, self.get(f"{root}/status", Authorization=f"Bearer {self.operator()}").content
        )

    def device(
        self,
        data: Path,
        state_dir: Path,
        *options: object,
        environment: dict[str, str] | None = None,
        old: bool = False,
    ) -> DeviceProcess:
        """A real device, called like its data, which takes part beside whatever else is done.

        It has the server's link, unless another is in the options or the environment, or it is an old one.
        """
        command = [sys.executable, "-m", "gkt_core.cli", "edge", "run"]
        if old:
            command += ["--server", self.info["url"]]
        elif environment is None and "--join" not in options:
            command += ["--join", str(self.data_dir / "join")]
        command += ["--data", str(data), "--state-dir", str(state_dir)]
        command += ["--client-id", data.stem, "--threads", "1"]
        log = state_dir.with_suffix(".log")
        with log.open("ab") as stream:
            process = subprocess.Popen(
                [*command, *map(str, options)],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=environment,
            )
        self.devices.append(process)
        return DeviceProcess(process, log)

    def operator(self) -> str:
        """What an operator shows it."""
        return operator_bearer(self.data_dir)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Stop it, and return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=LONGEST_SECONDS)

    def abandon(self) -> None:
        """End whatever it has started, and itself."""
        for device in self.devices:
            device.kill()
            device.wait()
        for trainer in self.trainers:
            # One that was stopped outlives its server; psutil kills no other process with its number.
            with contextlib.suppress(psutil.NoSuchProcess):
                trainer.kill()
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self.process.pid).children(recursive=True):
                process.kill()
        self.process.kill()
        self.process.wait()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Serve]]:
    """Starts ``gkt serve`` on a free port of the loopback address; nothing survives the test."""
    started: list[Serve] = []

    def start(*options: object) -> Serve:
        started.append(Serve(tmp_path / f"process-{len(started)}", tmp_path / "run", *options))
        return started[-1]

    yield start
    for each in started:
        each.abandon()


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


@dataclass(frozen=True)
class FinishedSmall:
    """A run of both devices over two rounds that nobody disturbed, and what the devices keep."""

    folder: Path

    @property
    def run(self) -> Path:
        return self.folder / "run"

    def copy_to(self, folder: Path) -> None:
        """Let a test go on with it: ``run`` for the server, ``device-0`` and ``device-1``."""
        for name in ("run", "device-0", "device-1"):
            shutil.copytree(self.folder / name, folder / name)


@pytest.fixture(scope="session")
def extracted_small(tmp_path_factory: pytest.TempPathFactory) -> SmallFederation:
    """The small federation; only read by tests."""

    def extract(folder: Path) -> None:
        with tarfile.open(ROOT / "tests" / "house" / "before.tar.xz") as archive:
            archive.extractall(folder, filter="data")

    return SmallFederation(shared_folder(tmp_path_factory, "small", extract))


@pytest.fixture
def small(extracted_small: SmallFederation, monkeypatch: pytest.MonkeyPatch) -> SmallFederation:
    """The same; processes that the test starts know its server network, and this one that there is one."""
    monkeypatch.setenv("PYTHONPATH", str(SMALL_SERVER))
    monkeypatch.setitem(networks._registered_servers, "small_server", lambda num_classes: None)
    return extracted_small


@pytest.fixture(scope="session")
def finished_small(
    extracted_small: SmallFederation, tmp_path_factory: pytest.TempPathFactory
) -> FinishedSmall:
    """The small federation's run, trained once for all tests."""

    def train(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", str(SMALL_SERVER))
            options = ("--artifacts", extracted_small.bundle, "--clients", "2", "--rounds", "2", *SMALL)
            server = Serve(folder / "process", folder / "run", *options)
            try:
                two_devices(server, extracted_small, folder)()
                assert server.end() == 130
            finally:
                server.abandon()

    return FinishedSmall(shared_folder(tmp_path_factory, "finished-small", train))


def two_devices(server: Serve, small: SmallFederation, folder: Path) -> Callable[[], None]:
    """Start both devices; what is returned waits for their good ends."""
    devices = [server.device(small.data(number), folder / f"device-{number}") for number in (0, 1)]

    def ended() -> None:
        for device in devices:
            assert device.ended() == 0, device.log.read_text()

    return ended
