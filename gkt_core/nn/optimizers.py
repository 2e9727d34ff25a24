"""The optimizers of section 4.1 and Appendix B.4."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from gkt_core.config.run_config import RunConfig


def edge_optimizer(parameters: Iterable[nn.Parameter], config: RunConfig) -> Optimizer:
    """What a device minimises Eq. 7 with: Adam or SGD with momentum and L2 weight decay, or AdamW."""
    if config.edge_optimizer == "sgd":
        return _sgd(parameters, config, config.edge_lr, config.edge_weight_decay)
    kind = AdamW if config.edge_optimizer == "adamw" else Adam
    return kind(
        parameters, lr=config.edge_lr, weight_decay=config.edge_weight_decay, amsgrad=config.edge_amsgrad
    )


def large_network_optimizer(
    parameters: Iterable[nn.Parameter], config: RunConfig, learning_rate: float
) -> Optimizer:
    """What trains ResNet-55 and larger, on the server or, in FedAvg, on a device.

    Args:
        parameters: What to train.
        config: ``server_optimizer``, ``server_amsgrad``, ``momentum``, ``nesterov``, ``weight_decay``.
        learning_rate: The server's or the devices'.
    """
    if config.server_optimizer == "sgd":
        return _sgd(parameters, config, learning_rate, config.weight_decay)
    return Adam(parameters, lr=learning_rate, weight_decay=config.weight_decay, amsgrad=config.server_amsgrad)


def _sgd(parameters: Iterable[nn.Parameter], config: RunConfig, rate: float, weight_decay: float) -> SGD:
    return SGD(
        parameters, lr=rate, momentum=config.momentum, weight_decay=weight_decay, nesterov=config.nesterov
    )


def set_learning_rate(optimizer: Optimizer, learning_rate: float) -> None:
    """Set the rate of all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
