"""What the tests of traffic and plan share: one real run over a metered wire.

A test module that wants it says ``pytest_plugins = ["tests.profiling.profile_fixtures"]``. It may import
names as well, and before that: PYTEST_DONT_REWRITE keeps pytest from warning about it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import LONGEST_SECONDS, shared_folder

NUM_SAMPLES, NUM_ROUNDS, IMAGE_SIZE = 90, 2, 8


@pytest.fixture(scope="session")
def demo_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real run of two devices of different sizes."""

    def run(folder: Path) -> None:
        command = [sys.executable, "-m", "gkt_core.cli", "demo", "--image-size", str(IMAGE_SIZE)]
        command += ["--limit", str(NUM_SAMPLES), "--rounds", str(NUM_ROUNDS), "--clients", "2"]
        command += ["--server-epochs", "1", "--partition", "dirichlet", "--shard-samples", "16"]
        command += ["--meter-wire", "--out", str(folder / "demo")]
        subprocess.run(command, check=True, capture_output=True, timeout=LONGEST_SECONDS)

    return shared_folder(tmp_path_factory, "metered", run) / "demo"
