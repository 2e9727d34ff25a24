"""What a notebook uses: from arrays over a served run to the combined model, in PyTorch and as ONNX."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import edge_export
import edge_runtime
import gkt_core
import server_app
from gkt_core import networks
from gkt_core.bundle.onnx_runtime import onnxruntime_module
from gkt_core.data.augment import to_float_nchw
from gkt_core.errors import ArtifactError, ConfigError, MessageError, RunFailedError
from server_app.own_networks import NETWORKS_NAME, check_networks
from tests.conftest import LONGEST_SECONDS
from tests.docs.pages import blocks_of

NAMES = ["circle", "square", "triangle"]


def images_of(owner: int, num: int = 24) -> tuple[Any, Any]:
    """Images of an owner, and their labels: brighter for a higher class."""
    labels = np.arange(num) % 3
    noise = np.random.default_rng(owner).integers(0, 40, (num, 8, 8, 3))
    return (noise + 90 * labels[:, None, None, None]).astype(np.uint8), labels


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The networks of docs/own-networks.md, in a file; this process forgets them afterwards."""
    monkeypatch.setattr(networks, "_registered_edges", {})
    monkeypatch.setattr(networks, "_registered_servers", {})
    path = tmp_path / "api_networks.py"
    path.write_text(blocks_of("docs/own-networks.md", "python")[0])
    networks.load_network_module(str(path))
    yield path
    sys.modules.pop("api_networks", None)


def test_importing_the_packages_loads_nothing_heavy() -> None:
    code = "import gkt_core, edge_runtime, edge_export, server_app, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"torch", "onnx", "onnxruntime", "flask", "sqlalchemy", "httpx", "matplotlib"}


@pytest.mark.parametrize("package", [gkt_core, edge_export, edge_runtime, server_app])
def test_every_name_is_there_and_no_other(package: Any) -> None:
    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        package.nothing  # noqa: B018 - asking is the test


@pytest.mark.system
def test_from_arrays_over_a_served_run_to_the_combined_model(tmp_path: Path, module: Path) -> None:
    options = edge_export.ExportOptions(
        edge_network="small_edge",
        server_network="wide_server",
        num_classes=3,
        class_names=tuple(NAMES),
        image_size=8,
        engines=("portable",),
    )
    edge_export.export_bundle(options, tmp_path / "artifacts")
    assert edge_export.verify(tmp_path / "artifacts")["portable"]["checks"]
    owners = [gkt_core.private_data(*images_of(owner), NAMES) for owner in range(2)]
    run = {"num_clients": 2, "rounds": 2, "server_epochs": 1, "server_batch_size": 8, "quarantine": False}

    with server_app.Server(
        tmp_path / "run",
        tmp_path / "artifacts",
        options={"networks": (str(module),), "poll_seconds": 0.05, "num_threads": 1},
        **run,
    ) as server:

        def take_part(owner: int) -> edge_runtime.DeviceResult:
            return edge_runtime.Client(
                server.join,
                owners[owner],
                client_id=f"owner-{owner}",
                state_dir=tmp_path / f"state-{owner}",
            ).run()

        with ThreadPoolExecutor(2) as both:
            results = list(both.map(take_part, range(2)))
        server.wait(LONGEST_SECONDS)
        assert server.phase == "finished"
        with pytest.raises(RunFailedError, match="in a with block"):
            server_app.Server(tmp_path / "run").wait()
    assert [result.rounds for result in results] == [2, 2]

    images = to_float_nchw(images_of(7)[0])
    session = onnxruntime_module().InferenceSession(results[0].model, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"images": images})
    network = edge_export.load_combined(results[0].model, tmp_path / "state-0" / "bundle")
    with torch.no_grad():
        np.testing.assert_allclose(network(torch.from_numpy(images)).numpy(), logits, atol=1e-4)
    # And back: a module, of a simulation too, as the file that a device would have.
    edge_export.save_combined(network, tmp_path / "again.onnx", image_size=8)
    again = onnxruntime_module().InferenceSession(tmp_path / "again.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(again.run(["logits"], {"images": images})[0], logits)
    accuracy = edge_runtime.evaluate_model(Path(results[0].model), owners[1].validation, num_threads=1)
    assert accuracy.num_examples == len(owners[1].validation)
    with pytest.raises(ArtifactError, match="is no combined model of small_edge and wide_server"):
        edge_export.load_combined(tmp_path / "run" / "join", tmp_path / "artifacts")

    # The run knows its module, and says so when it is gone.
    assert (tmp_path / "run" / NETWORKS_NAME).is_file()
    module.unlink()
    with pytest.raises(ConfigError, match=r"cannot load networks from .*api_networks\.py"):
        server_app.Server(tmp_path / "run").__enter__()


def manifest_of(name: str) -> Any:
    """As much of a manifest as is asked for."""

    class Manifest:
        server_network, num_classes, features = name, 3, [8, 4, 4]

    return Manifest()


@pytest.mark.system
@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "nobodys_server",
            None,
            "none of resnet55, resnet109.*give the module",
        ),
        ("wide_server", "import nothing_of_that_name", "nothing_of_that_name"),
        ("wide_server", "", "unknown network 'wide_server'"),
        ("own", "lambda n: nn.Conv2d(16, n, 1)", r"own does not take features \[8, 4, 4\]"),
        (
            "own",
            "lambda n: nn.Conv2d(8, n, 1)",
            r"own gives \[2, 3, 4, 4\] for two samples, expected \[2, 3\]",
        ),
    ],
)
def test_a_server_network_is_tried_before_a_run_begins(
    name: str, text: str | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "trial_networks.py"
    if text is not None and name == "own":
        text = (
            "from torch import nn\nfrom gkt_core import register_server_network\n"
            f"register_server_network('own', {text})\n"
        )
    path.write_text(text or "")
    with pytest.raises(ConfigError, match=message):
        check_networks(() if text is None else (str(path),), manifest_of(name))


def test_a_client_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("GKT_JOIN", raising=False)
    data = gkt_core.private_data(*images_of(0), NAMES)
    with pytest.raises(ConfigError, match="no link into a run"):
        edge_runtime.Client("http://127.0.0.1:1", data)
    with pytest.raises(ConfigError, match="goes with the URL"):
        edge_runtime.Client(None, data, token="a-token")
    nobody = edge_runtime.Client(None, data, client_id="door", state_dir=tmp_path / "state")
    with pytest.raises(ConfigError, match="does not belong to a run yet"):
        nobody.run()
    with pytest.raises(MessageError, match="client id"):
        edge_runtime.Client("http://127.0.0.1:1", data, token="a-token", client_id="../door")
    with pytest.raises(ConfigError, match=re.escape("'127.0.0.1:1'")):
        edge_runtime.Client("127.0.0.1:1", data, token="a-token", client_id="door")


def test_a_server_names_an_unknown_option(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="prot"):
        server_app.Server(tmp_path / "run", options={"prot": 1})
