"""Networks, optimizers and arrays as one safetensors file: no pickle, equal state gives equal bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from gkt_core.errors import ArtifactError
from gkt_core.files import write_atomically
from gkt_core.seal import OPEN_SEAL, close_seal, is_whole

Modules = Mapping[str, nn.Module]
Optimizers = Mapping[str, torch.optim.Optimizer]
Arrays = Mapping[str, NDArray[np.generic]]
Extra = dict[str, Any]
ValueT = TypeVar("ValueT")


def save_state(path: Path, modules: Modules, optimizers: Optimizers, arrays: Arrays, extra: Extra) -> None:
    """Write what :func:`state_bytes` makes of these, by atomic rename."""
    write_atomically(path, state_bytes(modules, optimizers, arrays, extra))


def state_bytes(modules: Modules, optimizers: Optimizers, arrays: Arrays, extra: Extra) -> bytes:
    """Encode a checkpoint, as it stands in a file.

    Args:
        modules: Parameters and buffers are stored as ``module/<name>/<tensor>``.
        optimizers: Per-parameter state is stored as ``optimizer/<name>/<index>/<key>``.
        arrays: Stored as ``array/<name>``.
        extra: JSON-compatible values, such as the round.
    """
    tensors: dict[str, Tensor] = {}
    for owner, module in modules.items():
        for name, value in module.state_dict().items():
            tensors[f"module/{owner}/{name}"] = value
    for owner, optimizer in optimizers.items():
        for index, state in optimizer.state_dict()["state"].items():
            for name, value in state.items():
                tensors[f"optimizer/{owner}/{index}/{name}"] = torch.as_tensor(value)
    for name, array in arrays.items():
        tensors[f"array/{name}"] = torch.from_numpy(np.array(array, order="C"))
    stored = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    return close_seal(save(stored, metadata={"gkt": json.dumps({**extra, **OPEN_SEAL}, sort_keys=True)}))


def load_state(path: Path, modules: Modules, optimizers: Optimizers) -> tuple[Arrays, Extra]:
    """Restore what :func:`save_state` wrote, in place.

    Returns:
        The arrays and the extra values.

    Raises:
        ArtifactError: The file cannot be read, or belongs to other networks.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"cannot read the checkpoint {path}: {error}") from error
    return restore_state(data, modules, optimizers, str(path))


def restore_state(data: bytes, modules: Modules, optimizers: Optimizers, name: str) -> tuple[Arrays, Extra]:
    """Restore what :func:`state_bytes` gave into networks and optimizers of the same names and layouts.

    Errors call the checkpoint by its ``name``.

    Returns:
        The arrays and the extra values.

    Raises:
        ArtifactError: It is no checkpoint, damaged, or belongs to other networks.
    """
    if not is_whole(data):
        raise ArtifactError(f"cannot read the checkpoint {name}: it is damaged, its bytes have changed")
    try:
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        extra = _without_seal(json.loads(header["__metadata__"]["gkt"]))
    except (SafetensorError, ValueError, KeyError) as error:
        raise ArtifactError(f"cannot read the checkpoint {name}: {error}") from error
    try:
        for owner, module in modules.items():
            module.load_state_dict(below(tensors, f"module/{owner}/"))
        for owner, optimizer in optimizers.items():
            state: dict[int, dict[str, Tensor]] = {}
            for place, value in below(tensors, f"optimizer/{owner}/").items():
                index, key = place.split("/", 1)
                state.setdefault(int(index), {})[key] = value
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    except (RuntimeError, ValueError) as error:
        raise ArtifactError(f"the checkpoint {name} belongs to another network: {error}") from error
    return {key: value.numpy() for key, value in below(tensors, "array/").items()}, extra


def save_checkpoint(path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, extra: Extra) -> None:
    """Write one network and its optimizer by atomic rename."""
    save_state(path, {"network": network}, {"network": optimizer}, {}, extra)


def load_checkpoint(path: Path, network: nn.Module, optimizer: torch.optim.Optimizer) -> Extra:
    """Restore what :func:`save_checkpoint` wrote, in place; the extra values.

    Raises:
        ArtifactError: The file cannot be read, or belongs to another network.
    """
    return load_state(path, {"network": network}, {"network": optimizer})[1]


def read_extra(path: Path) -> Extra:
    """Read the extra values of a checkpoint alone.

    Raises:
        ArtifactError: The file cannot be read.
    """
    try:
        with path.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            if size > path.stat().st_size:
                raise ArtifactError(f"cannot read the checkpoint {path}: it is cut short")
            header = json.loads(stream.read(size))
        return _without_seal(json.loads(header["__metadata__"]["gkt"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"cannot read the checkpoint {path}: {error}") from error


def _without_seal(extra: Extra) -> Extra:
    return {name: value for name, value in extra.items() if name not in OPEN_SEAL}


def below(values: Mapping[str, ValueT], prefix: str) -> dict[str, ValueT]:
    """Pick the values whose names begin with a prefix, and name them without it."""
    return {name[len(prefix) :]: value for name, value in values.items() if name.startswith(prefix)}
