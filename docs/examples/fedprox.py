"""FedProx (Li et al., MLSys 2020) as an algorithm of one's own: FedAvg whose devices stay near the mean.

::

    gkt simulate --algorithm docs/examples/fedprox.py:FedProx --setting mu=0.1 --rounds 3 --out fedprox
"""

import copy

from torch import nn

from gkt_core import Algorithm, RoundResult
from gkt_core.algorithms.base import state_wire_bytes
from gkt_core.algorithms.simulation.federation import training_batches
from gkt_core.nn.optimizers import large_network_optimizer


class FedProx(Algorithm):
    """Devices minimise cross entropy + mu / 2 x squared distance from the global weights (Eq. 2)."""

    def __init__(self, federation, config, *, mu=0.01, **networks):
        super().__init__(federation, config, **networks)
        self.mu, self.network = mu, self._combined_network()

    def run_round(self, round_num, learning_rate_scale, on_samples):
        """Train the drawn devices from the global weights, which become their mean."""
        clients = {name: self._federation.clients[name] for name in self._sample(round_num)}
        total = sum(len(data.train) for data in clients.values())
        mean, loss, sent, packed = {}, 0.0, 0, self._config.compress
        received = state_wire_bytes(self.network, compressed=packed) * len(clients)
        for name, data in clients.items():
            local = copy.deepcopy(self.network).train()
            optimizer = large_network_optimizer(
                local.parameters(), self._config, self._config.edge_lr * learning_rate_scale
            )
            for images, labels in training_batches(data.train, self._config, owner=name, round_num=round_num):
                optimizer.zero_grad()
                error = nn.functional.cross_entropy(local(images.to(self._device)), labels.to(self._device))
                pairs = zip(local.parameters(), self.network.parameters(), strict=True)
                distance = sum((mine - theirs.detach()).square().sum() for mine, theirs in pairs)
                (error + self.mu / 2 * distance).backward()
                optimizer.step()
                on_samples("devices", len(labels))
            sent += state_wire_bytes(local, compressed=packed)
            weight = len(data.train) / total
            loss += weight * error.item()
            for key, value in local.state_dict().items():
                mean[key] = mean.get(key, 0) + value.double() * weight
        like = self.network.state_dict()
        self.network.load_state_dict({key: value.to(like[key].dtype) for key, value in mean.items()})
        validated = self._validate(self.network)
        return RoundResult(loss, validated.loss, validated.accuracy, sent, received)

    def models(self):
        """Give the mean network."""
        return {"global": self.network}
