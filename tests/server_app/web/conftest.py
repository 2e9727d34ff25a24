"""The application of one run, and a deployed model in two halves."""

from pathlib import Path

import pytest
import torch

from edge_export.deployment import split
from gkt_core.bundle.manifest import COMBINED_TEMPLATE, load_bundle
from gkt_core.bundle.template import fill_template
from gkt_core.nn import CombinedNetwork, build_edge_network, build_server_network
from tests.conftest import shared_folder
from tests.edge_runtime.certificates import make_certificate
from tests.server_app.web.api_fixtures import api, app, bundle, joined, run

__all__ = ["api", "app", "bundle", "deployed", "joined", "run"]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and its key, as PEM files."""
    made = make_certificate(tmp_path_factory.mktemp("tls"), "127.0.0.1")
    return made.certificate, made.key


@pytest.fixture(params=["plain", "tls"])
def tls(request: pytest.FixtureRequest, certificate: tuple[Path, Path]) -> tuple[Path, Path] | None:
    """Both ways to reach a server: without a certificate, and with one."""
    return certificate if request.param == "tls" else None


@pytest.fixture(scope="session")
def deployed(server_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model.onnx, extractor.onnx and server.onnx of random weights."""

    def make(folder: Path) -> None:
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
