"""The table of taps in docs/research.md is what the networks are."""

from __future__ import annotations

import re

import torch

from gkt_core.config.run_config import CODECS
from gkt_core.networks import EDGE_LAYOUTS, NARROW_NETWORKS, completing_network
from gkt_core.nn import build_edge_network, build_server_network
from gkt_core.nn.building import example_images
from profiling.counted.message_sizes import encoded_feature_bytes
from profiling.counted.network_cost import count_forward_macs, count_parameters
from tests.docs.pages import text_of


def row(name: str) -> list[str]:
    """What the table should say of a network."""
    edge, images = build_edge_network(name, 10), example_images(1, 32)
    server = build_server_network(completing_network(name, "resnet55"), 10)
    shape = EDGE_LAYOUTS[name].feature_shape(32)

    def words(network: torch.nn.Module, inputs: torch.Tensor) -> str:
        return f"{count_parameters(network):,}, {count_forward_macs(network, inputs) / 1e6:.2f} M"

    return [
        name,
        "x".join(map(str, shape)),
        words(edge, images),
        words(edge.extractor, images),
        words(server, torch.zeros(1, *shape)),
        ", ".join(f"{encoded_feature_bytes(codec, shape):,}" for codec in CODECS[:4]),
    ]


def test_the_table_is_counted() -> None:
    section = text_of("docs/research.md").split("### Which tap")[1].split("###")[0]
    rows = [line.strip("| ").split(" | ") for line in re.findall(r"^\| resnet8.*$", section, re.MULTILINE)]
    named = [cells[0] for cells in rows]
    assert {*NARROW_NETWORKS, "resnet8", "resnet8-stride2", "resnet8-stride4"} == set(named)
    for cells, name in zip(rows, named, strict=True):
        assert cells == row(name)
