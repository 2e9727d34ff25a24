"""Initial weights from files, for runs that do not begin from random ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from gkt_core.errors import ArtifactError


@dataclass(frozen=True, slots=True)
class InitialWeights:
    """Files with the weights that networks begin from; None means random weights.

    Attributes:
        edge: Parameters and running statistics of the edge network, as ``.safetensors``, by their PyTorch
            names (``extractor.conv.weight`` and so on); all devices begin from them.
        server: The same of the server network.
    """

    edge: Path | None = None
    server: Path | None = None

    def fill_edge(self, network: nn.Module) -> None:
        """Overwrite the weights of an edge network, if there is a file."""
        if self.edge is not None:
            load_weights(network, self.edge)

    def fill_server(self, network: nn.Module) -> None:
        """Overwrite the weights of a server network, if there is a file."""
        if self.server is not None:
            load_weights(network, self.server)


def load_weights(network: nn.Module, path: Path) -> None:
    """Overwrite all parameters and running statistics of a network.

    Raises:
        ArtifactError: The file cannot be read, is another network's, or holds NaN or infinity.
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(
            f"cannot read initial weights from {path}: {error}: give a .safetensors file, as "
            "safetensors.torch.save_file(network.state_dict(), path) writes it"
        ) from error
    expected = {n: v for n, v in network.state_dict().items() if not n.endswith("num_batches_tracked")}
    given = {n: v for n, v in tensors.items() if not n.endswith("num_batches_tracked")}
    wrong = sorted(given.keys() ^ expected.keys()) or sorted(
        name for name in given if given[name].shape != expected[name].shape
    )
    if wrong:
        raise ArtifactError(
            f"{path} holds weights of another network: {', '.join(wrong[:3])}"
            f"{' and others' if len(wrong) > 3 else ''} do not fit: give a file of this network, "
            "class count included, or another network"
        )
    broken = [name for name, value in given.items() if not value.isfinite().all()]
    if broken:
        raise ArtifactError(
            f"{path} holds NaN or infinity in {', '.join(broken[:3])}: "
            "give the weights of a training that went well"
        )
    network.load_state_dict(given, strict=False)
