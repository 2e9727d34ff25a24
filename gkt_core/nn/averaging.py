"""An exponential moving average of a network's weights, which is evaluated, asked and deployed.

The average is quieter than the weights that jump about it. It is used wherever a network is in eval mode: for
validation, for soft labels, as the teacher is then what is deployed in the end, and for the final model.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gkt_core.config.run_config import RunConfig
from gkt_core.nn.optimizers import large_network_optimizer


class Averaged(nn.Module):
    """A network that is trained, and its average beside it, which answers in eval mode.

    Running statistics are averaged like weights. A young average forgets faster, or its random beginning
    would stay in it: after n steps its decay is at most (1 + n) / (10 + n).

    Args:
        network: Is trained.
        decay: What stays of the average in a step, above 0 and below 1.
    """

    num_updates: Tensor

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__()
        self.live, self.average = network, copy.deepcopy(network).requires_grad_(False)
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.int64))
        self._decay = decay

    def forward(self, inputs: Tensor) -> Tensor:
        """Pass through the trained network in training, and through the average otherwise."""
        output: Tensor = self.live(inputs) if self.training else self.average(inputs)
        return output

    @torch.no_grad()
    def update(self) -> None:
        """Move the average, after a step of the optimizer."""
        self.num_updates += 1
        num = int(self.num_updates)
        weight = 1 - min(self._decay, (1 + num) / (10 + num))
        live = self.live.state_dict()
        for name, value in self.average.state_dict().items():
            if value.is_floating_point():
                value.lerp_(live[name], weight)
            else:
                value.copy_(live[name])


def trained_with(network: nn.Module, config: RunConfig, learning_rate: float) -> tuple[nn.Module, Optimizer]:
    """Make what is trained of a large network, averaged if the config says so, and its optimizer."""
    if not config.server_ema:
        return network, large_network_optimizer(network.parameters(), config, learning_rate)
    averaged = Averaged(network, config.server_ema)
    optimizer = large_network_optimizer(network.parameters(), config, learning_rate)

    def follow(stepped: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        averaged.update()

    optimizer.register_step_post_hook(follow)
    return averaged, optimizer


def deployed(network: nn.Module) -> nn.Module:
    """Give what becomes the final model: the average where there is one."""
    return network.average if isinstance(network, Averaged) else network
