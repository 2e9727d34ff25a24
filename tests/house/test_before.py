"""Folders made before the packages got rooms go on: a run, the folders of its devices, a bundle.

``make_before.py`` made them with the commands of that time, and says what is in them.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tarfile
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner

from gkt_core import cli
from gkt_core.bundle.manifest import load_bundle
from gkt_core.wire.protocol import RunStatus, from_json
from tests.conftest import LONGEST_SECONDS, Gkt, until
from tests.house.make_before import SMALL_SERVER

HERE = Path(__file__).resolve().parent


@pytest.fixture
def before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what was made, in the folder where commands run; they know its server network."""
    with tarfile.open(HERE / "before.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.setenv("PYTHONPATH", str(SMALL_SERVER))
    return tmp_path


@contextlib.contextmanager
def served(run: Path) -> Iterator[dict[str, Any]]:
    """The server of a run folder, and what it wrote about itself."""
    command = [sys.executable, "-m", "gkt_core.cli", "serve", "--data-dir", str(run), "--port", "0"]
    with (run / "output").open("w+") as output:
        server = subprocess.Popen([*command, "--threads", "1"], stdout=output, stderr=output)
        try:
            information = run / "server.json"
            until(lambda: information.is_file() or server.poll() is not None, "the start of the server")
            assert server.poll() is None, (run / "output").read_text()
            yield json.loads(information.read_text())
        finally:
            server.terminate()
            server.wait(LONGEST_SECONDS)


@pytest.mark.system
def test_a_run_and_its_devices_go_on_to_the_end(before: Path, gkt: Gkt) -> None:
    devices = {"client-000": before / "first", "client-001": before / "second"}
    stands = {name: json.loads((folder / "state.json").read_text()) for name, folder in devices.items()}
    assert [stand["trained_round"] for stand in stands.values()] == [1, 1]
    assert (stands["client-000"]["partial_round"], bool(stands["client-000"]["partial"])) == (2, True)
    token = (before / "run" / "token").read_text().strip()

    def take_part(client_id: str) -> subprocess.CompletedProcess[str]:
        return gkt(
            "edge", "run", "--server", server["url"], "--token", token, "--json",
            "--data", f"split/clients/{client_id}.npz", "--state-dir", devices[client_id],
        )  # fmt: skip

    with served(before / "run") as server, ThreadPoolExecutor(2) as both:
        ended = list(both.map(take_part, devices))
        request = urllib.request.Request(f"{server['url']}/v1/runs/{server['run_id']}/status")
        request.add_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request) as response:
            status = from_json(RunStatus, response.read())

    assert [each.returncode for each in ended] == [0, 0], [each.stderr for each in ended]
    assert (status.phase, status.round_num) == ("finished", 2)
    assert [each.round_num for each in status.finished_rounds] == [1, 2]
    for name, folder in devices.items():
        stand = json.loads((folder / "state.json").read_text())
        assert (stand["run_id"], stand["trained_round"]) == (stands[name]["run_id"], 2)
        assert stand["engine"] == stands[name]["engine"]
        model = onnxruntime.InferenceSession(folder / "model.onnx")
        (logits,) = model.run(["logits"], {"images": np.zeros((5, 3, 8, 8), np.float32)})
        assert logits.shape == (5, 3) and np.isfinite(logits).all()


def test_a_bundle_is_opened_and_verified(before: Path) -> None:
    manifest = load_bundle(before / "bundle").manifest
    assert (manifest.edge_network, manifest.server_network) == ("resnet4", "small_server")

    verified = CliRunner().invoke(cli.gkt, ["verify", str(before / "bundle")])

    assert verified.exit_code == 0, verified.output
