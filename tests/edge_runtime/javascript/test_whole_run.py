"""A whole run over TLS: a Python device and a Node device, each with a folder of real photos."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from edge_runtime.connection.authority import pinned
from gkt_core.data.private_data import load_private_data
from gkt_core.wire.protocol import RunStatus, from_json
from tests.conftest import LONGEST_SECONDS, shared_folder
from tests.server_app.served import Serve

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif("GKT_TEST_DATA" not in os.environ, reason="needs GKT_TEST_DATA with cifar10.npz"),
]

CLASSES = ("airplane", "automobile", "bird", "cat")
ROUNDS, EACH = 3, 12


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def export(folder: Path) -> None:
        command = [sys.executable, "-m", "gkt_core.cli", "export", "--classes", ",".join(CLASSES)]
        command += ["--image-size", "32", "--engine", "portable", "--out", str(folder / "artifacts")]
        subprocess.run(command, check=True, capture_output=True, timeout=LONGEST_SECONDS)

    return shared_folder(tmp_path_factory, "bundle-of-four", export) / "artifacts"


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=LONGEST_SECONDS)


def here(link: str) -> str:
    """A link of a server with an authority of its own: the name under which it is reached says nothing."""
    assert link.startswith("gkt+https://") and "&ca=sha256:" in link
    return re.sub("//[^:/]+:", "//127.0.0.1:", link)


def status_of(server: Serve) -> RunStatus:
    """The run at a glance, of a server with an authority of its own."""
    trusted = pinned((server.data_dir / "authority.pem").read_text())
    url = f"https://127.0.0.1:{server.info['url'].rpartition(':')[2]}/v1/runs/{server.info['run_id']}/status"
    with httpx.Client(trust_env=False, timeout=LONGEST_SECONDS, verify=trusted) as http:
        answer = http.get(url, headers={"Authorization": f"Bearer {server.operator()}"})
    return from_json(RunStatus, answer.content)


def photos(folder: Path, owner: int) -> Path:
    """CIFAR-10 images of an owner as PNG files, one folder a class."""
    with np.load(Path(os.environ["GKT_TEST_DATA"]) / "cifar10.npz") as arrays:
        images, labels = arrays["x_train"][:2000], arrays["y_train"][:2000].reshape(-1)
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for index in np.flatnonzero(labels == label)[owner * EACH : (owner + 1) * EACH]:
            Image.fromarray(images[index]).save(folder / name / f"{index}.png")
    return folder


def test_a_node_device_beside_a_python_device(
    gkt_edge: list[str], bundle: Path, serve: Callable[..., Serve], tmp_path: Path
) -> None:
    server = serve(
        "--artifacts", bundle, "--host", "0.0.0.0", "--clients", "2", "--rounds", ROUNDS,
        "--server-epochs", "1", "--batch-size", "16", "--uploads", "rounds=1,3",
    )  # fmt: skip
    link = tmp_path / "run" / "join"
    link.write_text(here(link.read_text()))
    python = server.device(photos(tmp_path / "first", 0), tmp_path / "python")
    command = [*gkt_edge, "run", "--join", str(link), "--data", str(photos(tmp_path / "second", 1))]
    command += ["--state-dir", str(tmp_path / "node"), "--client-id", "second", "--json"]
    node = run(command)
    assert node.returncode == 0, node.stderr
    assert python.ended() == 0, python.log.read_text()

    result = json.loads(node.stdout)
    assert result["rounds"] == ROUNDS and result["client_id"] == "second"
    status = status_of(server)
    assert status.phase == "finished" and {each.client_id for each in status.clients} == {"first", "second"}
    assert {each.engine for each in status.clients} == {"portable"} and not status.quarantined
    assert len(status.finished_rounds) == ROUNDS
    told = [json.loads(line) for line in node.stderr.splitlines()]
    assert (
        {"train", "upload", "wait", "model"}
        >= {each["phase"] for each in told if "phase" in each}
        > {"train"}
    )
    model = tmp_path / "node" / "model.onnx"
    assert result["model"] == str(model)
    evaluated = evaluate(model, tmp_path / "node" / "packed.npz")
    packed = load_private_data(tmp_path / "node" / "packed.npz")
    assert evaluated["num_examples"] == len(packed.validation) == result["num_validation_images"]
    assert evaluated["accuracy"] == pytest.approx(
        result["validation_accuracy"], abs=1 / len(packed.validation)
    )
    # Started again, it takes its model again, by its own secret.
    again = run([*gkt_edge, "run", "--data", str(tmp_path / "second"), "--state-dir", str(tmp_path / "node")])
    assert again.returncode == 0 and "3 rounds" in again.stdout, again.stderr


def evaluate(model: Path, data: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "gkt_core.cli", "edge", "evaluate", "--json"]
    command += ["--model", str(model), "--data", str(data)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=LONGEST_SECONDS)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def test_another_authority_than_the_links_is_not_told_anything(
    gkt_edge: list[str], bundle: Path, serve: Callable[..., Serve], tmp_path: Path
) -> None:
    server = serve("--artifacts", bundle, "--host", "0.0.0.0", "--clients", "1", "--rounds", "1")
    text = here((tmp_path / "run" / "join").read_text().strip())
    begin, authority = text[:-64], text[-64:]
    command = [*gkt_edge, "run", "--data", str(photos(tmp_path / "photos", 0)), "--patience-seconds", "0"]
    command += ["--state-dir", str(tmp_path / "state"), "--join"]
    wrong = subprocess.run(
        [*command, begin + authority[::-1]],
        capture_output=True,
        text=True,
        check=False,
        timeout=LONGEST_SECONDS,
    )
    assert wrong.returncode == 5 and "is not the server of the link" in wrong.stderr, wrong.stderr
    # A link without the authority trusts the usual ones, who know nothing of this server.
    usual = run([*command, text[: text.index("&ca=")]])
    assert usual.returncode == 4 and "no authority that this device knows signed it" in usual.stderr
    assert status_of(server).clients == []
