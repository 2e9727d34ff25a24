"""Initial weights from files, for runs that do not begin from random ones."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from gkt_core.errors import ArtifactError


def load_weights(network: nn.Module, path: Path | None, *, prefix: str = "") -> None:
    """Overwrite all parameters and running statistics of a network, if there is a file.

    Args:
        network: Whose weights.
        path: A ``.safetensors`` file with PyTorch's names, ``extractor.conv.weight`` and so on.
        prefix: What every name in the file may begin with, such as the half of a network that it is.

    Raises:
        ArtifactError: The file cannot be read, is another network's, or holds NaN or infinity.
    """
    if path is None:
        return
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(
            f"cannot read initial weights from {path}: {error}: give a .safetensors file, as "
            "safetensors.torch.save_file(network.state_dict(), path) writes it"
        ) from error
    if prefix and all(name.startswith(prefix) for name in tensors):
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
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
