"""The optimizers of section 4.1 and Appendix B.4."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from gkt_core.config.edge_optimizer import EdgeOptimizer
from gkt_core.config.run_config import RunConfig


def edge_optimizer(
    parameters: Iterable[nn.Parameter], settings: EdgeOptimizer, learning_rate: float
) -> Optimizer:
    """Build what a device minimises Eq. 7 with; every engine is compared with it."""
    if settings.name == "sgd":
        return SGD(
            parameters,
            lr=learning_rate,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            nesterov=settings.nesterov,
        )
    kind = AdamW if settings.name == "adamw" else Adam
    return kind(
        parameters,
        lr=learning_rate,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        amsgrad=settings.amsgrad,
    )


def large_network_optimizer(
    parameters: Iterable[nn.Parameter], config: RunConfig, learning_rate: float
) -> Optimizer:
    """Build what trains ResNet-55 and larger, on the server or, in FedAvg, on a device.

    Args:
        parameters: What to train.
        config: ``server_optimizer``, ``server_amsgrad``, ``momentum``, ``nesterov``, ``weight_decay``.
        learning_rate: The server's or the devices'.
    """
    if config.server_optimizer == "sgd":
        return SGD(
            parameters,
            lr=learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            nesterov=config.nesterov,
        )
    return Adam(parameters, lr=learning_rate, weight_decay=config.weight_decay, amsgrad=config.server_amsgrad)


def set_learning_rate(optimizer: Optimizer, learning_rate: float) -> None:
    """Set the rate of all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
