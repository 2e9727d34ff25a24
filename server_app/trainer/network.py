"""Make, check and publish the run's server network."""

from __future__ import annotations

import os

import numpy as np
import torch
from safetensors.torch import save
from torch import nn

from gkt_core.algorithms import Evaluation, ServerUpdate
from gkt_core.bundle.manifest import COMBINED_TEMPLATE
from gkt_core.bundle.template import SERVER_PREFIX, fill_template
from gkt_core.errors import ConfigError, GKTError
from gkt_core.nn import build_server_network
from gkt_core.nn.averaging import deployed, trained_with
from server_app.run_folder import SERVER_WEIGHTS_BLOB, TEMPLATE_BLOB, RunContext


def build_network(run: RunContext, torch_device: torch.device) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The run's server network with its first weights, and its optimizer."""
    manifest = run.bundle.manifest
    network: nn.Module = build_server_network(
        manifest.server_network, manifest.num_classes, seed=run.config.seed
    )
    # The faster layout of convolutions on CPUs; the numbers it holds are the same.
    network = network.to(torch_device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return trained_with(network, run.config, run.config.server_lr)


def own_torch_device(name: str, rank: int | None) -> torch.device:
    """The CPU, or this process's own of the machine's GPUs.

    Args:
        name: ``cpu`` or ``cuda``.
        rank: Of the process, where torchrun does not say it.

    Raises:
        ConfigError: PyTorch sees no GPU.
    """
    if name == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError("--device is cuda, but PyTorch sees no GPU: choose cpu")
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", rank or 0)))
    return torch.device(name)


def check_finite(round_num: int, update: ServerUpdate, evaluation: Evaluation) -> None:
    """Refuse a network that has diverged.

    Raises:
        GKTError: Its logits are NaN or infinite.
    """
    # A loss is computed before its update: the last update shows only in what comes after it.
    if not (np.isfinite(update.server_logits).all() and np.isfinite(evaluation.loss)):
        raise GKTError(
            f"the server network gives NaN or infinity after round {round_num}: "
            "training diverged, lower server_lr"
        )


def publish_model(run: RunContext, network: nn.Module) -> None:
    """Store the trained model: the template, filled with the server's weights, and the weights alone."""
    tensors = {
        SERVER_PREFIX + name: value.cpu().contiguous()
        for name, value in deployed(network).state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    template = run.bundle.file(COMBINED_TEMPLATE).read_bytes()
    arrays = {name: value.numpy() for name, value in tensors.items()}
    filled = fill_template(template, run.bundle.manifest.slots(), arrays, SERVER_PREFIX)
    run.blobs.put(TEMPLATE_BLOB, filled)
    run.blobs.put(SERVER_WEIGHTS_BLOB, save(tensors))
