"""Shared extractors of simulated devices: averaged after a round, and what all begin the next one from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from gkt_core.algorithms.simulation.client import SimulatedClient
from gkt_core.config.run_config import RunConfig
from gkt_core.nn.checkpoint import below
from gkt_core.rounds.shared_extractor import (
    ExtractorSpec,
    mean_extractor,
    read_extractor,
    write_extractor,
)
from gkt_core.wire.levels.transport import wire_body

# No device's name has a slash.
_MEAN = "mean/extractor/"


class Sharing:
    """What devices and server do about extractors, as they would travel.

    Args:
        clients: All devices, by name.
        config: Says after which rounds they share.
    """

    def __init__(self, clients: Mapping[str, SimulatedClient], config: RunConfig) -> None:
        self._clients, self._config = clients, config
        self._mean: dict[str, NDArray[np.float32]] = {}

    def begin(self, chosen: Sequence[str], round_num: int) -> int:
        """Give the mean of the round before to the devices of this one; the bytes that they received."""
        if not self._mean or not self._config.shares_after(round_num - 1):
            return 0
        data = write_extractor(ExtractorSpec.of_arrays(self._mean), self._mean, "", round_num - 1)
        for client_id in chosen:
            self._clients[client_id].engine.replace(self._mean)
        return len(data) * len(chosen)

    def end(self, chosen: Sequence[str], round_num: int) -> int:
        """Average the extractors of a round's devices, if it is time to; the bytes that they sent."""
        if not self._config.shares_after(round_num):
            return 0
        sent, parts, spec = 0, [], None
        for client_id in chosen:
            client = self._clients[client_id]
            own = client.engine.extractor()
            spec = ExtractorSpec.of_arrays(own)
            data = write_extractor(spec, own, client_id, round_num)
            sent += len(wire_body(data, None, compressed=self._config.compress).data)
            parts.append((len(client.part.data.train), read_extractor(data, spec, client_id, round_num)))
        if spec is not None:
            shared_before = self._mean and self._config.shares_after(round_num - 1)
            self._mean = mean_extractor(spec, parts, self._mean if shared_before else None)
        return sent

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Collect what outlives a round."""
        return {_MEAN + name: values for name, values in self._mean.items()}

    def restore_arrays(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Take back what :meth:`arrays` gave."""
        mean = below(arrays, _MEAN)
        self._mean = {name: values.astype(np.float32) for name, values in mean.items()}
