"""A deployed model in two halves, with random weights: nothing here asks what it has learnt.

A test module that wants the fixture names this module and ``tests.server_app.server_fixtures`` in
``pytest_plugins``.
"""

import pytest
import torch

from edge_export.deployment import split
from gkt_core.bundle.manifest import COMBINED_TEMPLATE, load_bundle
from gkt_core.bundle.template import fill_template
from gkt_core.nn import CombinedNetwork, build_edge_network, build_server_network
from tests.conftest import shared_folder


@pytest.fixture(scope="session")
def deployed(server_bundle, tmp_path_factory):
    """A folder with model.onnx, extractor.onnx and server.onnx."""

    def make(folder):
        bundle = load_bundle(server_bundle)
        manifest, template = bundle.manifest, bundle.file(COMBINED_TEMPLATE).read_bytes()
        # Initial weights and running statistics of no batch: what a first inference would give.
        with torch.random.fork_rng():
            torch.manual_seed(7)
            edge = build_edge_network(manifest.edge_network, manifest.num_classes)
            server = build_server_network(manifest.server_network, manifest.num_classes)
        network = CombinedNetwork(edge.extractor, server, edge.normalise)
        tensors = {
            name: value.numpy() for name, value in network.state_dict().items() if "num_batches" not in name
        }
        for prefix in ("server.", "extractor."):
            template = fill_template(template, manifest.slots(), tensors, prefix)
        (folder / "model.onnx").write_bytes(template)
        split(folder / "model.onnx", folder / "extractor.onnx", folder / "server.onnx")

    return shared_folder(tmp_path_factory, "deployed", make)
