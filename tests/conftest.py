"""Fixtures that several test modules share."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from filelock import FileLock
from hypothesis import settings
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

from gkt_core.algorithms.simulation.federation import Federation, load_federation
from gkt_core.bundle.manifest import Bundle, load_bundle
from gkt_core.data.datasets import load_dataset
from gkt_core.data.split import SplitOptions, split_dataset
from tests.chromium import chromium

__all__ = ["chromium"]

ROOT = Path(__file__).resolve().parent.parent

# Networks of the tests are so small that a second thread makes them slower, ten times so where two workers
# share two cores: threads wait for each other busily. The variable is for processes that tests start; this
# one has loaded OpenMP already.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

# A parent that ignores Ctrl-C (nohup, a job in the background of a script) passes that on to everything it
# starts, and no test of an interrupt could ever end. Signals that are handled begin with their default again.
if (
    threading.current_thread() is threading.main_thread()
    and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says how busy the machine is.
settings.register_profile("gkt", deadline=None)
settings.register_profile("fast", deadline=None, max_examples=10)
settings.load_profile("gkt")

# How long anything waits for another process: long enough beside any load, as nothing takes that long unless
# it fails. Below pytest's limit of a test, so that a failure says what did not happen.
LONGEST_SECONDS = 900.0

T = TypeVar("T")
# What starts a process, as Python's audit events are called.
STARTS = frozenset({"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system"})
LISTENS = "socket.bind"

# A test of more steps of a PyTorch optimizer trains.
FAST_STEPS = 3

Gkt = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fast", action="store_true", help="skip tests that start a process, listen, export or train"
    )


class Fast:
    """Skips a test at the moment when it does what takes long: there is no mark that could be missing.

    That is starting a process, listening for connections, exporting a network and training. What fixtures
    train counts for none of the tests, nor what those of the whole session export.
    """

    def __init__(self) -> None:
        self._is_test = False
        self._may_export = True
        self._num_steps = 0
        self._reason = ""
        signal.signal(signal.SIGUSR2, lambda *_: pytest.skip(self._reason))
        sys.addaudithook(self._audit)
        torch.onnx.export = self._skipping(torch.onnx.export)
        register_optimizer_step_pre_hook(self._step)

    def _audit(self, event: str, arguments: object) -> None:
        if self._is_test and event in STARTS:
            self._skip("starts a process")
        if self._is_test and event == LISTENS:
            self._skip("listens")

    def _skipping(self, export: Callable[..., T]) -> Callable[..., T]:
        @functools.wraps(export)
        def unless_a_test_calls(*args: object, **kwargs: object) -> T:
            if self._is_test and not self._may_export:
                self._skip("exports")
            return export(*args, **kwargs)

        return unless_a_test_calls

    def _step(self, optimizer: Optimizer, arguments: object, options: object) -> None:
        self._num_steps += 1
        if self._is_test and self._num_steps > FAST_STEPS:
            self._skip("trains")

    def _skip(self, reason: str) -> None:
        is_first, self._reason = not self._reason, reason
        main = threading.main_thread()
        if is_first and threading.current_thread() is not main:
            # The test may be waiting for what this thread would have done. Once: then it is reported.
            signal.pthread_kill(main.ident or 0, signal.SIGUSR2)
        pytest.skip(reason)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """A thread that is ended here is no fault of the test's, nor what it leaves open."""
        for item in items:
            for warning in ("PytestUnhandledThreadExceptionWarning", "PytestUnraisableExceptionWarning"):
                item.add_marker(pytest.mark.filterwarnings(f"ignore::pytest.{warning}"))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self) -> Iterator[None]:
        """Look at tests only: pytest-xdist starts processes between them."""
        self._is_test, self._may_export = True, False
        try:
            return (yield)
        finally:
            self._is_test = False

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[object]) -> Iterator[None]:
        """Let fixtures export what all tests share."""
        before, self._may_export = self._may_export, fixturedef.scope == "session"
        try:
            return (yield)
        finally:
            self._may_export = before

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self) -> Iterator[None]:
        """Let fixtures train what they like."""
        self._num_steps = -1_000_000
        try:
            return (yield)
        finally:
            self._num_steps = 0

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Iterator[None]:
        """Skip also what made something else of it, such as the failure of a thread that waited."""
        self._reason = ""
        try:
            return (yield)
        except Exception:
            if self._reason:
                pytest.skip(self._reason)
            raise


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--fast"):
        settings.load_profile("fast")
        config.pluginmanager.register(Fast())


def free_port() -> int:
    """A port that is free, and that no system hands out itself: those begin at 32,768 or above."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def until(condition: Callable[[], T], what: str) -> T:
    """Wait for a condition, and return what it gives: the first value that counts as true.

    Args:
        condition: Asked again and again; one that can never hold any more has to fail itself.
        what: For the message: what did not happen.
    """
    deadline = time.monotonic() + LONGEST_SECONDS
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"{what} did not happen in {LONGEST_SECONDS:.0f} s")


@pytest.fixture
def gkt(tmp_path: Path) -> Gkt:
    """Run the command ``gkt`` in a process of its own, in an empty folder."""

    def run(*arguments: str | Path, timeout: float = LONGEST_SECONDS) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "gkt_core.cli", *map(str, arguments)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env={name: value for name, value in os.environ.items() if name != "GKT_TOKEN"},
        )

    return run


def shared_folder(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that is made once, even where several processes run tests (pytest-xdist).

    Args:
        tmp_path_factory: Pytest's.
        name: Of the folder.
        make: Fills it; what it leaves is only read by tests.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"shared-{name}"
    complete = folder / ".complete"
    with FileLock(f"{folder}.lock"):
        if not complete.is_file():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            complete.touch()
    return folder


@pytest.fixture(scope="session")
def digits_split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real digits at 16 px, split over four devices."""
    out = tmp_path_factory.mktemp("digits") / "split"
    split_dataset(load_dataset("digits"), SplitOptions(4, "iid", 0.5, 0.1, 0), out)
    return out


@pytest.fixture(scope="session")
def digits_bundle(tmp_path_factory: pytest.TempPathFactory, digits_split: Path) -> Bundle:
    """ResNet-8 and ResNet-55 exported for them by the command itself."""

    def export(folder: Path) -> None:
        command = [sys.executable, "-m", "gkt_core.cli", "export", "--out", str(folder / "artifacts")]
        command += ["--split", str(digits_split / "partition.json")]
        subprocess.run(command, check=True, capture_output=True, timeout=LONGEST_SECONDS)

    return load_bundle(shared_folder(tmp_path_factory, "bundle", export) / "artifacts")


@pytest.fixture(scope="session")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    """Two devices with a few digits of 8 pixels, and samples for pre-training."""
    out = tmp_path_factory.mktemp("federation") / "split"
    dataset = load_dataset("digits", image_size=8, limit=90)
    split_dataset(dataset, SplitOptions(2, "iid", 0.5, 0.1, 0, pretraining_share=0.2), out)
    return load_federation(out)
