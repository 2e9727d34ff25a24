"""A device's training engine in PyTorch: what simulations train with."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from gkt_core.config.edge_optimizer import EdgeOptimizer
from gkt_core.config.run_config import RunConfig
from gkt_core.nn.building import EdgeNetwork
from gkt_core.nn.losses import distance_correlation, edge_loss
from gkt_core.nn.optimizers import edge_optimizer, set_learning_rate


class TorchEngine:
    """A :class:`gkt_core.rounds.engine.TrainingEngine` on one edge network."""

    def __init__(self, network: EdgeNetwork, config: RunConfig) -> None:
        self.network = network
        self.temperature, self.leakage_penalty = config.temperature, config.leakage_penalty
        self.optimizer = edge_optimizer(network.parameters(), EdgeOptimizer.of_run(config), config.edge_lr)
        self._device = next(network.parameters()).device

    def set_learning_rate(self, learning_rate: float) -> None:
        """Set the rate of all steps from now on."""
        set_learning_rate(self.optimizer, learning_rate)

    def train_step(
        self,
        images: NDArray[np.float32],
        labels: NDArray[np.int64],
        server_logits: NDArray[np.float32],
        alpha: float,
    ) -> tuple[float, NDArray[np.float32]]:
        """Minimise Eq. 7 on one batch; see the protocol."""
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        inputs = self._tensor(images)
        features, logits = self.network(inputs)
        loss = edge_loss(logits, self._tensor(labels), self._tensor(server_logits), alpha, self.temperature)
        if self.leakage_penalty:
            loss = loss + self.leakage_penalty * distance_correlation(inputs, features)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.item(), np.asarray(logits.detach().cpu().numpy())

    def predict(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Compute features and logits in eval mode."""
        self.network.eval()
        with torch.no_grad():
            features, logits = self.network(self._tensor(images))
        return np.asarray(features.cpu().numpy()), np.asarray(logits.cpu().numpy())

    def replace(self, tensors: Mapping[str, NDArray[np.float32]]) -> None:
        """Overwrite some parameters and running statistics, by name; the optimizer's state stays."""
        with torch.no_grad():
            state = self.network.state_dict()
            for name, values in tensors.items():
                state[name].copy_(self._tensor(values))

    def extractor(self) -> dict[str, NDArray[np.float32]]:
        """Copy the weights and running statistics of the part that makes features."""
        return {
            f"extractor.{name}": np.array(value.cpu().numpy(), np.float32)
            for name, value in self.network.extractor.state_dict().items()
            if value.is_floating_point()
        }

    def _tensor(self, array: NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)
