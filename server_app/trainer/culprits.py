"""Find the devices on whose samples no network can be trained: theirs make a loss NaN or infinite."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Set

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gkt_core.config.run_config import RunConfig
from gkt_core.data.augment import batches
from gkt_core.errors import GKTError
from gkt_core.nn.losses import server_loss
from gkt_core.rounds.feature_source import FeatureBatch, ShardSource

# Of a device's gradients against the median of the others': honest ones differ by less than ten.
_FAR_LARGER = 1e4
_TINY = 1e-12
_EVALUATION_BATCH = 256


def whom_to_leave_out(
    network: nn.Module,
    training: ShardSource,
    validation: ShardSource,
    config: RunConfig,
    parts: Set[str],
    error: GKTError,
) -> dict[str, str]:
    """Decide which devices a step goes on without, after its loss became NaN or infinite.

    Args:
        network: As for :func:`find_culprits`.
        training: The same.
        validation: The same.
        config: The same.
        parts: Devices that have a part in the step.
        error: What the training ended with.

    Returns:
        Reasons by client id; at least one device is left.

    Raises:
        GKTError: It is nobody's samples, or everybody's, or nobody may be left out.
    """
    culprits = find_culprits(network, training, validation, config)
    reasons = {client_id: reason for client_id, reason in culprits.items() if client_id in parts}
    if not reasons or len(reasons) == len(parts):
        raise GKTError(f"{error}, with gkt serve --resume-failed --server-lr RATE") from error
    if not config.quarantine:
        told = "; ".join(f"{client_id}: {reason}" for client_id, reason in reasons.items())
        raise GKTError(
            f"training broke on a device's samples: {told}. Nobody is left out of a run with "
            "--no-quarantine: gkt clients revoke DEVICE, then gkt serve --resume-failed"
        ) from error
    return reasons


def find_culprits(
    network: nn.Module, training: ShardSource, validation: ShardSource, config: RunConfig
) -> dict[str, str]:
    """Try each device's samples alone.

    Args:
        network: With weights that were good; its running statistics are of no use afterwards.
        training: Samples of the round.
        validation: Those that are evaluated on.
        config: Of the run.

    Returns:
        Reasons by client id; nothing where the training itself is what diverges.
    """
    # First, as batches in training mode leave their mark in the running statistics.
    spoilt = [name for name in validation.client_ids if not _evaluates(network, validation, name)]
    gradients = {name: _gradient(network, training, name, config) for name in training.client_ids}
    reasons = {
        name: f"its validation samples give NaN or infinity{_reach(validation, name)}" for name in spoilt
    }
    for name, gradient in gradients.items():
        others = [value for other, value in gradients.items() if other != name and math.isfinite(value)]
        if not math.isfinite(gradient):
            reasons[name] = f"training on its samples gives NaN or infinity{_reach(training, name)}"
        elif others and gradient > _FAR_LARGER * max(statistics.median(others), _TINY):
            reasons[name] = f"its samples give far larger gradients than others'{_reach(training, name)}"
    return reasons


def _parts(source: ShardSource, client_id: str, size: int) -> Iterator[FeatureBatch]:
    for rows in batches(_rows(source, client_id), size):
        yield source.gather(rows)


def _rows(source: ShardSource, client_id: str) -> NDArray[np.intp]:
    return np.flatnonzero(source.owners == list(source.client_ids).index(client_id))


def _gradient(network: nn.Module, source: ShardSource, client_id: str, config: RunConfig) -> float:
    """The largest gradient that a batch of this device's samples gives; NaN or infinity where it has none."""
    largest = 0.0
    torch_device = next(network.parameters()).device
    network.train()
    for batch in _parts(source, client_id, config.server_batch_size):
        if len(batch.labels) < 2:
            # Batch statistics of a single sample are no statistics.
            continue
        network.zero_grad(set_to_none=True)
        logits = network(torch.from_numpy(batch.features).to(torch_device))
        labels = torch.from_numpy(batch.labels).to(torch_device)
        client_logits = torch.from_numpy(batch.client_logits).to(torch_device)
        alpha = config.alpha if config.server_distils else 0.0
        loss = server_loss(logits.float(), labels, client_logits, alpha, config.temperature)
        loss.backward()  # type: ignore[no-untyped-call]
        values = [loss.detach(), *(each.grad for each in network.parameters() if each.grad is not None)]
        reach = max(
            float(value.abs().max()) if bool(value.isfinite().all()) else math.inf for value in values
        )
        largest = max(largest, reach)
    network.zero_grad(set_to_none=True)
    return largest


def _evaluates(network: nn.Module, source: ShardSource, client_id: str) -> bool:
    torch_device = next(network.parameters()).device
    network.eval()
    with torch.no_grad():
        return all(
            bool(network(torch.from_numpy(batch.features).to(torch_device)).isfinite().all())
            for batch in _parts(source, client_id, _EVALUATION_BATCH)
        )


def _reach(source: ShardSource, client_id: str) -> str:
    """How large its features are, in words."""
    parts = _parts(source, client_id, _EVALUATION_BATCH)
    return f": its features reach {max(float(np.abs(batch.features).max()) for batch in parts):.3g}"
