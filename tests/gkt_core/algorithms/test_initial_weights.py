"""What runs begin from: random weights, shared or not, or files; and mixed precision."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from gkt_core.algorithms.fedgkt import FedGKT
from gkt_core.algorithms.simulation.federation import Federation
from gkt_core.errors import ArtifactError, ConfigError
from gkt_core.nn import build_edge_network, build_server_network
from tests.conftest import Gkt
from tests.gkt_core.algorithms.test_algorithms import build, ignore, with_options


def fedgkt(federation: Federation, **options: object) -> FedGKT:
    paths = {name: options.pop(name) for name in ("initial_edge", "initial_server") if name in options}
    algorithm = build("fedgkt", federation, with_options(**options), **paths)
    assert isinstance(algorithm, FedGKT)
    return algorithm


def test_devices_begin_alike_unless_told_otherwise(federation: Federation) -> None:
    def first_weights(**options: object) -> list[torch.Tensor]:
        networks = fedgkt(federation, **options).edge_models().values()
        return [network.state_dict()["extractor.conv.weight"] for network in networks]

    one, other = first_weights()
    assert torch.equal(one, other)
    one, other = first_weights(shared_init=False)
    assert not torch.equal(one, other)
    assert torch.equal(one, first_weights(shared_init=False)[0])


def test_files_fill_all_networks(federation: Federation, tmp_path: Path) -> None:
    edge, server = build_edge_network("resnet8", 10, seed=77), build_server_network("resnet55", 10, seed=78)
    save_file(edge.state_dict(), tmp_path / "edge.safetensors")
    save_file(server.state_dict(), tmp_path / "server.safetensors")
    algorithm = fedgkt(
        federation,
        initial_edge=tmp_path / "edge.safetensors",
        initial_server=tmp_path / "server.safetensors",
    )
    expected = {"server": server, "client-000": edge, "client-001": edge}
    assert algorithm.modules().keys() == expected.keys()
    for name, module in algorithm.modules().items():
        for key, value in module.state_dict().items():
            assert torch.equal(value, expected[name].state_dict()[key]), key


def test_files_of_other_networks(federation: Federation, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    with pytest.raises(ArtifactError, match="cannot read initial weights"):
        fedgkt(federation, initial_edge=path)
    path.write_bytes(b"no safetensors")
    with pytest.raises(ArtifactError, match="cannot read initial weights"):
        fedgkt(federation, initial_edge=path)
    save_file(build_edge_network("resnet8", 100).state_dict(), path)
    with pytest.raises(ArtifactError, match=r"weights of another network: head\.fc\.bias, head\.fc\.weight"):
        fedgkt(federation, initial_edge=path)
    save_file(build_edge_network("resnet4", 10).state_dict(), path)
    with pytest.raises(ArtifactError, match="and others do not fit"):
        fedgkt(federation, initial_edge=path)
    weights = build_edge_network("resnet8", 10).state_dict()
    weights["head.fc.bias"] = torch.full_like(weights["head.fc.bias"], float("nan"))
    save_file(weights, path)
    with pytest.raises(ArtifactError, match=r"holds NaN or infinity in head\.fc\.bias: give"):
        fedgkt(federation, initial_edge=path)
    with pytest.raises(ConfigError, match="fedavg begins from random weights"):
        build("fedavg", federation, initial_edge=path)


@pytest.mark.system
def test_a_run_from_files_is_another_run(federation: Federation, gkt: Gkt, tmp_path: Path) -> None:
    """A resumed run must begin from the same files; other contents are other settings."""
    path = tmp_path / "edge.safetensors"
    save_file(build_edge_network("resnet8", 10, seed=1).state_dict(), path)
    run = ("simulate", "--image-size", "8", "--limit", "60", "--clients", "2", "--server-epochs", "1",
           "--rounds", "1", "--init-edge", path, "--out", "out")  # fmt: skip
    assert gkt(*run).returncode == 0
    save_file(build_edge_network("resnet8", 10, seed=2).state_dict(), path)
    again = gkt(*run)
    assert again.returncode == 2
    assert "init_edge" in again.stderr


def test_mixed_precision_trains_and_evaluates_in_float32(federation: Federation) -> None:
    runs = {}
    for precision in ("fp32", "bf16"):
        algorithm = fedgkt(federation, precision=precision)
        runs[precision] = [algorithm.run_round(number, 1.0, ignore) for number in (1, 2)]
        for module in algorithm.modules().values():
            assert all(value.dtype != torch.bfloat16 for value in module.state_dict().values())
    for exact, mixed in zip(*runs.values(), strict=True):
        assert exact.train_loss != mixed.train_loss
        assert exact.train_loss == pytest.approx(mixed.train_loss, rel=0.1)
