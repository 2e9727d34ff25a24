"""Make, check and publish the run's server network."""

from __future__ import annotations

import json
import os

import numpy as np
import torch
from safetensors.torch import save
from torch import nn

from gkt_core.algorithms import DivergedError, Evaluation, ServerUpdate
from gkt_core.bundle.model_identity import SERVER, identity_of_run
from gkt_core.bundle.template import SERVER_PREFIX
from gkt_core.errors import ConfigError
from gkt_core.nn import build_server_network
from gkt_core.nn.averaging import deployed, trained_with
from gkt_core.seal import OPEN_SEAL, close_seal
from server_app.run_folder import (
    SERVER_INIT_NAME,
    SERVER_WEIGHTS_BLOB,
    TEMPLATE_BLOB,
    RunContext,
    filled_template,
)


def build_network(run: RunContext, torch_device: torch.device) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The run's server network with its first weights, and its optimizer."""
    manifest = run.bundle.manifest
    first = run.folder / SERVER_INIT_NAME
    network = build_server_network(
        manifest.server_network,
        manifest.num_classes,
        seed=run.config.seed,
        weights=first if first.is_file() else None,
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
            raise ConfigError("--device is cuda, but PyTorch sees no GPU: choose cpu, or make one visible")
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", rank or 0)))
    return torch.device(name)


def check_finite(round_num: int, update: ServerUpdate, evaluation: Evaluation) -> None:
    """Refuse a network that has diverged.

    Raises:
        DivergedError: Its logits are NaN or infinite.
    """
    # A loss is computed before its update: the last update shows only in what comes after it.
    if not (np.isfinite(update.server_logits).all() and np.isfinite(evaluation.loss)):
        raise DivergedError(
            f"the server network gives NaN or infinity after round {round_num}: "
            "training diverged, lower server_lr"
        )


def is_finite(network: nn.Module) -> bool:
    """Whether all weights and running statistics are numbers."""
    return all(bool(value.isfinite().all()) for value in network.state_dict().values())


def publish_model(run: RunContext, network: nn.Module, accuracy: float | None = None) -> None:
    """Store the trained model: the template, filled with the server's weights, and the weights alone.

    Args:
        run: The run.
        network: Its server network.
        accuracy: On the devices' validation samples; by default that of the last step that has one.
    """
    if accuracy is None:
        accuracy = _last_accuracy(run)
    tensors = {
        SERVER_PREFIX + name: value.cpu().contiguous()
        for name, value in deployed(network).state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    # No run's name: wherever a run is kept, equal training gives equal bytes.
    said = identity_of_run(
        run.bundle.manifest,
        SERVER,
        rounds=run.config.rounds,
        validation_accuracy=accuracy,
    )
    sealed = save(tensors, metadata={"gkt": json.dumps({**said.to_dict(), **OPEN_SEAL}, sort_keys=True)})
    weights = close_seal(sealed)
    run.blobs.put(TEMPLATE_BLOB, filled_template(run.bundle, weights))
    run.blobs.put(SERVER_WEIGHTS_BLOB, weights)


def _last_accuracy(run: RunContext) -> float | None:
    measured = (record.metrics for record in run.store.rounds() if record.trained_at)
    return next((each["validation_accuracy"] for each in reversed(list(measured)) if each), None)
