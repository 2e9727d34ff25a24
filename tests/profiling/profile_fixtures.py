"""What the tests of profiling share: one real run over a metered wire, and ``gkt`` in the test's own process.

A test module that wants them says ``pytest_plugins = ["tests.profiling.profile_fixtures"]``. It may import
names as well, and before that: PYTEST_DONT_REWRITE keeps pytest from warning about it.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from gkt_core.cli import main
from tests.conftest import LONGEST_SECONDS, Gkt, shared_folder

NUM_SAMPLES, NUM_ROUNDS, IMAGE_SIZE = 90, 2, 8
DEMO = (
    *("demo", "--image-size", str(IMAGE_SIZE), "--limit", str(NUM_SAMPLES), "--rounds", str(NUM_ROUNDS)),
    *("--clients", "2", "--server-epochs", "1", "--partition", "dirichlet", "--shard-samples", "16"),
    *("--alone-rounds", "1"),
)


@pytest.fixture(scope="session")
def demo_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real run of two devices of different sizes; ``stdout`` and ``stderr`` lie beside its folder."""

    def run(folder: Path) -> None:
        command = [sys.executable, "-m", "gkt_core.cli", *DEMO, "--meter-wire", "--json"]
        command += ["--out", str(folder / "demo"), "--track", f"tensorboard:{folder / 'logs'}"]
        done = subprocess.run(command, check=True, capture_output=True, timeout=LONGEST_SECONDS)
        (folder / "stdout").write_bytes(done.stdout)
        (folder / "stderr").write_bytes(done.stderr)

    return shared_folder(tmp_path_factory, "metered", run) / "demo"


@pytest.fixture
def gkt_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Gkt]:
    """Run ``gkt`` in this process, in an empty folder: what takes seconds to load is there already."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    deterministic = torch.are_deterministic_algorithms_enabled()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GKT_TOKEN", raising=False)

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        words = ["gkt", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as end:
            main()
        code = end.value.code
        assert isinstance(code, int)
        said = capsys.readouterr()
        return subprocess.CompletedProcess(words, code, said.out, said.err)

    yield run
    torch.use_deterministic_algorithms(deterministic)
    for number, handler in handlers.items():
        signal.signal(number, handler)
