"""Fixtures that several test modules share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gkt_core.commands.data import SplitOptions, split_dataset
from gkt_core.datasets import load_dataset
from gkt_core.manifest import Bundle, load_bundle

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
