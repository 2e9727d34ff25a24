"""A pair of networks that a user's module registers: simulated, exported, trained on a device."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from gkt_core.bundle.manifest import load_bundle
from gkt_core.errors import ConfigError
from gkt_core.networks import load_network_module, register_edge_network, register_server_network
from gkt_core.nn import build_combined_network, build_edge_network, feature_shape
from tests.conftest import ROOT, Gkt

PAGE = (ROOT / "docs" / "own-networks.md").read_text(encoding="utf-8")
PAIR = ("--networks", "my_networks.py", "--model", "small_edge", "--server-model", "wide_server")
FAST = ("--image-size", "8", "--limit", "150", "--clients", "2", "--server-epochs", "1", "--rounds", "2")


@pytest.fixture
def module(tmp_path: Path) -> Path:
    """The module as docs/own-networks.md shows it."""
    (text,) = re.findall(r"```python\n(.*?register_edge_network.*?)```", PAGE, re.DOTALL)
    assert len([line for line in text.splitlines() if line.strip()]) <= 15
    path = tmp_path / "my_networks.py"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "algorithm",
    ["fedgkt", *(pytest.param(each, marks=pytest.mark.slow) for each in ("fedavg", "split_learning"))],
)
def test_simulated(algorithm: str, module: Path, gkt: Gkt, tmp_path: Path) -> None:
    done = gkt("simulate", *PAIR, *FAST, "--algorithm", algorithm, "--out", "out", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["config"]["edge_network"] == "small_edge"
    assert result["config"]["server_network"] == "wide_server"


@pytest.mark.system
def test_exported_and_trained_on_a_device_without_the_module(module: Path, gkt: Gkt, tmp_path: Path) -> None:
    split = gkt("data", "split", "--image-size", "8", "--limit", "120", "--clients", "2", "--out", "split")
    assert split.returncode == 0, split.stderr
    done = gkt("export", *PAIR, "--split", "split/partition.json", "--out", "bundle")
    assert done.returncode == 0, done.stderr
    manifest = load_bundle(tmp_path / "bundle").manifest
    assert manifest.feature_shape == (8, 4, 4)
    # One batch norm behind the stride, one in the head: both see 4 x 4 pixels.
    assert [norm.num_pixels for norm in manifest.batch_norms] == [16, 16]
    module.unlink()
    trained = gkt(
        "edge", "train-alone", "--artifacts", "bundle", "--data", "split/clients/client-000.npz",
        "--test", "split/test.npz", "--rounds", "2", "--json",
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    assert 0 <= json.loads(trained.stdout)["accuracy"] <= 1


def test_the_pair_is_one_network(module: Path) -> None:
    load_network_module(str(module))
    edge = build_edge_network("small_edge", 5, seed=3)
    assert feature_shape(edge, 16) == (8, 8, 8)
    again = build_edge_network("small_edge", 5, seed=3)
    other = build_edge_network("small_edge", 5, seed=4)
    values = [network.state_dict()["extractor.0.weight"].numpy() for network in (edge, again, other)]
    assert np.array_equal(values[0], values[1])
    assert not np.array_equal(values[0], values[2])
    combined = build_combined_network("small_edge", "wide_server", 5, seed=3)
    extractor = combined.state_dict()["extractor.0.weight"].numpy()
    assert np.array_equal(extractor, values[0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nothing_of_that_name", "ModuleNotFoundError"),
        ("raise RuntimeError('broken')", "RuntimeError: broken"),
        ("def", "SyntaxError"),
        (None, "cannot load networks from my_networks.py"),
    ],
)
def test_a_module_that_cannot_be_loaded(text: str | None, message: str, gkt: Gkt, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "my_networks.py").write_text(text)
    done = gkt("simulate", *PAIR, *FAST, "--out", "out")
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


def test_names_that_cannot_be_used() -> None:
    for name in ("resnet8", "resnet55", "resnet110", "Net", "", "a/b", "a" * 41):
        with pytest.raises(ConfigError, match="network name"):
            register_server_network(name, lambda classes: None)
        with pytest.raises(ConfigError, match="network name"):
            register_edge_network(name, extractor=lambda: None, head=lambda classes: None)


def test_an_unknown_network_names_the_known(gkt: Gkt) -> None:
    done = gkt("simulate", "--model", "resnet9", *FAST, "--out", "out")
    assert done.returncode == 2
    assert "'resnet9' is not one of resnet4, resnet6, resnet8, resnet8-tied" in done.stderr
