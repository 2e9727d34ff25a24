"""The optimizers of section 4.1 and Appendix B.4."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from gkt_core.config.edge_optimizer import EdgeOptimizer
from gkt_core.config.run_config import RunConfig


def edge_optimizer(
    parameters: Iterable[nn.Parameter], settings: EdgeOptimizer, learning_rate: float
) -> Optimizer:
    """Build what a device minimises Eq. 7 with; every engine is compared with it."""
    if settings.name == "sgd":
        return _sgd(parameters, settings, learning_rate)
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

    Of the config: ``server_optimizer``, ``server_amsgrad``, ``momentum``, ``nesterov``, ``weight_decay``,
    ``decay_norms``.
    """
    groups = parameters if config.decay_norms else _without_norms(parameters)
    if config.server_optimizer == "sgd":
        return _sgd(groups, config, learning_rate)
    return Adam(groups, lr=learning_rate, weight_decay=config.weight_decay, amsgrad=config.server_amsgrad)


def _without_norms(parameters: Iterable[nn.Parameter]) -> list[dict[str, Any]]:
    """Part weights from what is left alone: biases, and the scales of batch norm, which are vectors too."""
    weights, vectors = list[nn.Parameter](), list[nn.Parameter]()
    for parameter in parameters:
        (weights if parameter.ndim > 1 else vectors).append(parameter)
    return [{"params": weights}, {"params": vectors, "weight_decay": 0.0}]


def _sgd(
    parameters: Iterable[nn.Parameter] | list[dict[str, Any]],
    settings: EdgeOptimizer | RunConfig,
    rate: float,
) -> SGD:
    momentum, decay, nesterov = settings.momentum, settings.weight_decay, settings.nesterov
    return SGD(parameters, lr=rate, momentum=momentum, weight_decay=decay, nesterov=nesterov)


def set_learning_rate(optimizer: Optimizer, learning_rate: float) -> None:
    """Set the rate of all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
