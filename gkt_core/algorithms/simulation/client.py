"""A device of a simulation: its part, an edge network, and what it remembers from round to round."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from gkt_core.algorithms.simulation.torch_engine import TorchEngine
from gkt_core.algorithms.simulation.uploads import Uploads
from gkt_core.nn.building import EdgeNetwork
from gkt_core.rounds.client_part import ClientPart
from gkt_core.rounds.client_round import LocalProgress, TrainingBatch, client_batches, client_update
from gkt_core.rounds.drift import fixed_features, uploads_now
from gkt_core.wire.shards import SoftLabels, write_soft_labels


class SimulatedClient:
    """The device's half of Algorithm 1 (lines 17 to 30), without a wire.

    Attributes:
        last_round: The round it last took part in; 0 before the first.
        uploaded_round: The round of its last upload; 0 before the first.
        uploaded: The network that made that upload, where not every round has one.
    """

    def __init__(self, part: ClientPart, engine: TorchEngine) -> None:
        self.part, self.engine = part, engine
        self.last_round = self.uploaded_round = 0
        every = part.config.uploads_every_round
        self.uploaded = None if every else copy.deepcopy(engine.network)
        self._soft_labels: SoftLabels | None = None

    def receive(self, soft_labels: SoftLabels) -> None:
        """Take the server's answer to the last upload (line 14)."""
        self._soft_labels = soft_labels

    @property
    def download_bytes(self) -> int:
        """Size of that answer on the wire; 0 where it is not sent for."""
        if self._soft_labels is None or not self.part.config.edge_distils:
            return 0
        return len(write_soft_labels(self.part.client_id, self.last_round, self._soft_labels))

    def batches(self, round_num: int, learning_rate_scale: float) -> Iterator[TrainingBatch]:
        """Make the batches of this round's local epochs, to be trained on beside those of other devices."""
        return client_batches(
            self.part,
            self._soft_labels,
            round_num,
            teacher_round=self.uploaded_round,
            learning_rate_scale=learning_rate_scale,
        )

    def train(
        self,
        round_num: int,
        learning_rate_scale: float,
        on_samples: Callable[[int], None],
        *,
        done: LocalProgress | None = None,
        on_progress: Callable[[LocalProgress], None] = lambda progress: None,
    ) -> None:
        """Train on the samples of this device (lines 19 to 21); the last two are :func:`client_update`'s."""
        client_update(
            self.engine,
            self.part,
            self._soft_labels,
            round_num,
            teacher_round=self.uploaded_round,
            learning_rate_scale=learning_rate_scale,
            done=done,
            on_batch=on_samples,
            on_progress=on_progress,
        )

    def upload(self, round_num: int, uploads: Uploads) -> None:
        """Send what the extractor makes of them (lines 22 to 30)."""
        uploads.send_client(self.engine, self.part, round_num)
        self.last_round = self.uploaded_round = round_num

    def report(self, round_num: int, uploads: Uploads) -> None:
        """Close a round: upload if it is time to, and have the server hold the last upload if it is not."""
        if self.uploaded is None:
            return self.upload(round_num, uploads)
        if round_num > self.last_round:
            then = fixed_features(self._uploading, self.part) if self.uploaded_round else None
            if uploads_now(self.engine, self.part, round_num, self.uploaded_round, then):
                self.uploaded.load_state_dict(self.engine.network.state_dict())
                self.uploaded_round = round_num
            self.last_round = round_num
        return self.send_again(uploads)

    def send_again(self, uploads: Uploads) -> None:
        """Send the last upload, unless it is there: the network that made it makes the same again."""
        if self.uploaded_round and not uploads.has(self.part.client_id, self.uploaded_round):
            uploads.forget(frozenset({self.part.client_id}))
            uploads.send_client(self._uploading, self.part, self.uploaded_round)

    @property
    def _uploading(self) -> TorchEngine:
        return self.engine if self.uploaded is None else TorchEngine(self.uploaded, self.part.config)

    @property
    def deployed(self) -> EdgeNetwork:
        """The network whose extractor becomes part of the model: the one of the last upload."""
        return self.uploaded if self.uploaded is not None and self.uploaded_round else self.engine.network

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Collect what outlives a round, but for the network."""
        arrays: dict[str, NDArray[np.generic]] = {"last_round": np.asarray(self.last_round)}
        if self.uploaded is not None:
            arrays["uploaded_round"] = np.asarray(self.uploaded_round)
        if self._soft_labels is not None:
            arrays["sample_ids"] = self._soft_labels.sample_ids
            arrays["server_logits"] = self._soft_labels.server_logits
        return arrays

    def restore_arrays(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Take back what :meth:`arrays` gave."""
        self.last_round = int(arrays["last_round"].item())
        self.uploaded_round = int(arrays.get("uploaded_round", arrays["last_round"]).item())
        if "sample_ids" in arrays:
            self._soft_labels = SoftLabels(
                arrays["sample_ids"].astype(np.int64), arrays["server_logits"].astype(np.float32)
            )
