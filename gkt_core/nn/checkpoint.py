"""A network and its optimizer as one safetensors file: no pickle, equal state gives equal bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from gkt_core.errors import ArtifactError
from gkt_core.files import write_atomically

_MODEL, _OPTIMIZER = "model.", "optimizer."


def save_checkpoint(
    path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, extra: dict[str, Any]
) -> None:
    """Write a checkpoint by atomic rename.

    Args:
        path: Where.
        network: Its parameters and buffers are stored under ``model.``.
        optimizer: Its per-parameter tensors are stored under ``optimizer.<index>.``.
        extra: JSON-compatible values, such as the round.
    """
    tensors: dict[str, Tensor] = {
        _MODEL + name: value.detach().contiguous() for name, value in network.state_dict().items()
    }
    for index, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            tensors[f"{_OPTIMIZER}{index}.{name}"] = torch.as_tensor(value).detach().contiguous()
    write_atomically(path, save(tensors, metadata={"gkt": json.dumps(extra, sort_keys=True)}))


def load_checkpoint(path: Path, network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Restore what :func:`save_checkpoint` wrote, in place.

    Returns:
        The extra values.

    Raises:
        ArtifactError: The file cannot be read, or belongs to another network.
    """
    try:
        data = path.read_bytes()
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        extra = json.loads(header["__metadata__"]["gkt"])
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise ArtifactError(f"cannot read the checkpoint {path}: {error}") from error
    model = {name[len(_MODEL) :]: value for name, value in tensors.items() if name.startswith(_MODEL)}
    try:
        network.load_state_dict(model)
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith(_OPTIMIZER):
                index, key = name[len(_OPTIMIZER) :].split(".", 1)
                state.setdefault(int(index), {})[key] = value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    except (RuntimeError, ValueError) as error:
        raise ArtifactError(f"the checkpoint {path} belongs to another network: {error}") from error
    return dict(extra)
