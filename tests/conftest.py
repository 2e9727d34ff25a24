"""Fixtures that several test modules share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from gkt_core.algorithms.federation import Federation, load_federation
from gkt_core.commands.data import SplitOptions, split_dataset
from gkt_core.datasets import load_dataset
from gkt_core.manifest import Bundle, load_bundle

# Networks of the tests are so small that a second thread makes them slower.
os.environ["OMP_NUM_THREADS"] = "1"

Gkt = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def gkt(tmp_path: Path) -> Gkt:
    """Run the command ``gkt`` in a process of its own, in an empty folder."""

    def run(*arguments: str | Path, timeout: float = 300.0) -> subprocess.CompletedProcess[str]:
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


@pytest.fixture(scope="session")
def digits_split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real digits at 16 px, split over four devices."""
    out = tmp_path_factory.mktemp("digits") / "split"
    split_dataset(load_dataset("digits"), SplitOptions(4, "iid", 0.5, 0.1, 0), out)
    return out


@pytest.fixture(scope="session")
def digits_bundle(tmp_path_factory: pytest.TempPathFactory, digits_split: Path) -> Bundle:
    """ResNet-8 and ResNet-55 exported for them by the command itself."""
    out = tmp_path_factory.mktemp("bundle") / "artifacts"
    command = [sys.executable, "-m", "gkt_core.cli", "export", "--out", str(out)]
    command += ["--split", str(digits_split / "partition.json")]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return load_bundle(out)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """PyTorch with one thread: tiny networks are slower with more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    """Two devices with a few digits of 8 pixels, and samples for pre-training."""
    out = tmp_path_factory.mktemp("federation") / "split"
    dataset = load_dataset("digits", image_size=8, limit=90)
    split_dataset(dataset, SplitOptions(2, "iid", 0.5, 0.1, 0, pretraining_share=0.2), out)
    return load_federation(out)
