"""Many simulated devices' training steps as one: a vmapped pass over all their weights.

For GPUs, where 16 networks of 10,586 parameters one after another leave the card idle. Weights, running
statistics and optimizer states of all devices lie stacked, ``[K, ...]``; each device's own network and
optimizer hold views of them, so that evaluation, checkpoints and odd batches work as ever. PyTorch turns
the vmapped convolutions into grouped ones.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call

from gkt_core.algorithms.simulation.client import SimulatedClient
from gkt_core.config.edge_optimizer import EdgeOptimizer
from gkt_core.config.run_config import RunConfig
from gkt_core.errors import GKTError
from gkt_core.nn.losses import distance_correlation, edge_loss
from gkt_core.rounds.client_round import TrainingBatch, train_on_batch

_ADAM_STATE = ("exp_avg", "exp_avg_sq")
State = dict[str, Tensor]


class GroupedTraining:
    """The local training of all devices of a simulation, step by step at once.

    Steps whose batches are full are taken together; a device's last, smaller batch is taken by its own
    engine. Both update the same tensors. All devices have networks of one layout.
    """

    def __init__(self, clients: Sequence[SimulatedClient], config: RunConfig) -> None:
        self._clients, self._config = list(clients), config
        self._optimizer = EdgeOptimizer.of_run(config)
        self._places = {client.part.client_id: place for place, client in enumerate(clients)}
        self._layout = copy.deepcopy(self._clients[0].engine.network).to("meta")
        self._names = [name for name, _ in self._layout.named_parameters()]
        self._parameters: dict[str, Tensor] = {}
        self._buffers: dict[str, Tensor] = {}
        self._state: dict[str, State] = {}

    def train(
        self,
        client_ids: Sequence[str],
        round_num: int,
        learning_rate_scale: float,
        on_samples: Callable[[int], None],
    ) -> None:
        """Run lines 19 to 21 of Algorithm 1 for these devices; ``on_samples`` hears of each step's images.

        Raises:
            GKTError: A loss is no longer finite.
        """
        self._tie()
        clients = [self._clients[self._places[client_id]] for client_id in client_ids]
        streams = {
            client.part.client_id: client.batches(round_num, learning_rate_scale) for client in clients
        }
        while streams:
            drawn = {client_id: next(stream, None) for client_id, stream in streams.items()}
            batches = {client_id: batch for client_id, batch in drawn.items() if batch is not None}
            streams = {client_id: streams[client_id] for client_id in batches}
            size = self._config.batch_size
            full = {client_id: batch for client_id, batch in batches.items() if len(batch.labels) == size}
            if len(full) == 1:
                full = {}
            odd = {client_id: batch for client_id, batch in batches.items() if client_id not in full}
            for client_id, batch in odd.items():
                train_on_batch(self._clients[self._places[client_id]].engine, batch, round_num)
                on_samples(len(batch.labels))
            if full:
                self._step(full, round_num)
                on_samples(sum(len(batch.labels) for batch in full.values()))

    def _step(self, batches: dict[str, TrainingBatch], round_num: int) -> None:
        device = next(iter(self._parameters.values())).device
        places = torch.tensor([self._places[client_id] for client_id in batches], device=device)
        everybody = len(places) == len(self._clients)

        def rows(stacked: Tensor) -> Tensor:
            return stacked if everybody else stacked.index_select(0, places.to(stacked.device))

        def tensor(values: list[NDArray[Any]]) -> Tensor:
            return torch.from_numpy(np.stack(values)).to(device)

        chosen = list(batches.values())
        parameters = {name: rows(value).detach().requires_grad_() for name, value in self._parameters.items()}
        buffers = {name: rows(value) for name, value in self._buffers.items()}
        self._layout.train()
        images = tensor([batch.images for batch in chosen])
        features, logits = torch.vmap(self._forward)(parameters, buffers, images)
        labels = tensor([batch.labels for batch in chosen])
        teachers = tensor([batch.server_logits for batch in chosen])
        alphas = torch.tensor([batch.alpha for batch in chosen], device=device)
        each = zip(logits, labels, teachers, alphas, strict=True)
        losses = torch.stack([edge_loss(*values, self._config.temperature) for values in each])
        if penalty := self._config.leakage_penalty:
            pairs = zip(images, features, strict=True)
            losses = losses + penalty * torch.stack([distance_correlation(*pair) for pair in pairs])
        gradients = torch.autograd.grad(losses.sum(), list(parameters.values()))
        if not bool(torch.isfinite(losses).all()):
            raise GKTError(
                f"a local loss is not finite in round {round_num}: training diverged, lower edge_lr"
            )
        with torch.no_grad():
            for name, gradient in zip(parameters, gradients, strict=True):
                state = {key: rows(value) for key, value in self._state[name].items()}
                value = parameters[name].detach()
                # Devices with other numbers of batches are at other places of the run.
                rate = _like([batch.learning_rate for batch in chosen], value)
                update = _sgd if self._optimizer.name == "sgd" else _adam
                update(value, gradient, state, self._optimizer, rate)
                if not everybody:
                    self._parameters[name].index_copy_(0, places, value)
                    for key, changed in state.items():
                        self._state[name][key].index_copy_(0, places.to(changed.device), changed)
            if not everybody:
                for name, buffer in buffers.items():
                    self._buffers[name].index_copy_(0, places, buffer)

    def _forward(
        self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], images: Tensor
    ) -> tuple[Tensor, Tensor]:
        features, logits = functional_call(self._layout, (parameters, buffers), (images,))
        return features, logits

    def _tie(self) -> None:
        """Stack all states, and make each device's own tensors views of the stacks.

        Each round anew: restoring a checkpoint gives optimizers tensors of their own.
        """
        networks = [client.engine.network for client in self._clients]
        self._parameters = {
            name: torch.stack([network.get_parameter(name).detach() for network in networks])
            for name in self._names
        }
        self._buffers = {
            name: torch.stack([network.get_buffer(name) for network in networks])
            for name, _ in self._layout.named_buffers()
        }
        for place, network in enumerate(networks):
            for name, parameter in network.named_parameters():
                parameter.data = self._parameters[name][place]
            for path, module in network.named_modules():
                for name in list(module._buffers):
                    full_name = f"{path}.{name}" if path else name
                    module._buffers[name] = self._buffers[full_name][place]
        self._state = {name: self._tied_state(name) for name in self._names}

    def _tied_state(self, name: str) -> State:
        """Stack the state of one parameter's optimizer over devices; it begins at zero as PyTorch's does."""
        value = self._parameters[name]
        zeros = {"momentum_buffer": value[0]}
        if self._optimizer.name != "sgd":
            zeros = dict.fromkeys(_ADAM_STATE, value[0]) | {"step": torch.zeros(())}
            if self._optimizer.amsgrad:
                zeros["max_exp_avg_sq"] = value[0]
        engines = [client.engine for client in self._clients]
        states = [each.optimizer.state[each.network.get_parameter(name)] for each in engines]
        stacked = {}
        for key, like in zeros.items():
            values = [
                state[key] if state.get(key) is not None else torch.zeros_like(like) for state in states
            ]
            stacked[key] = torch.stack([each.to(like.device) for each in values])
            for place, state in enumerate(states):
                state[key] = stacked[key][place]
        return stacked


def _like(rates: list[float], value: Tensor) -> Tensor | float:
    """Give rates to multiply stacked tensors with, one each; a number where all are the same."""
    if len(set(rates)) == 1:
        return rates[0]
    return torch.tensor(rates, device=value.device).view(-1, *[1] * (value.ndim - 1))


def _adam(
    value: Tensor, gradient: Tensor, state: State, settings: EdgeOptimizer, rate: Tensor | float
) -> None:
    """Step as PyTorch's Adam or AdamW does, in place, on stacked tensors with a step count each."""
    if settings.name == "adamw":
        value.mul_(1 - rate * settings.weight_decay)
    gradient = gradient.add(value, alpha=settings.l2_penalty)
    state["step"].add_(1)
    step = state["step"].to(value.device).view(-1, *[1] * (value.ndim - 1))
    state["exp_avg"].lerp_(gradient, 1 - settings.beta1)
    state["exp_avg_sq"].mul_(settings.beta2).addcmul_(gradient, gradient, value=1 - settings.beta2)
    second = state["exp_avg_sq"]
    if settings.amsgrad:
        second = torch.maximum(state["max_exp_avg_sq"], second, out=state["max_exp_avg_sq"])
    denominator = second.sqrt() / (1 - settings.beta2**step).sqrt() + settings.eps
    value.sub_(rate / (1 - settings.beta1**step) * state["exp_avg"] / denominator)


def _sgd(
    value: Tensor, gradient: Tensor, state: State, settings: EdgeOptimizer, rate: Tensor | float
) -> None:
    """Step as PyTorch's SGD with momentum does, in place; a buffer of zeros gives its first step too."""
    gradient = gradient.add(value, alpha=settings.l2_penalty)
    buffer = state["momentum_buffer"].mul_(settings.momentum).add_(gradient)
    value.sub_(rate * (gradient.add(buffer, alpha=settings.momentum) if settings.nesterov else buffer))
