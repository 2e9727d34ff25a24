"""Every soft label returns to its own sample and to the view that the teacher saw.

The teacher here is a fixed function of the features, and the features are the image itself. So whatever
reaches a training step can be recomputed from the images of that very step: if a soft label belonged to
another sample, or to another view of the same sample, the two would differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gkt_core.algorithms import server_update
from gkt_core.config.run_config import RunConfig
from gkt_core.data.private_data import PrivateData, Samples
from gkt_core.rounds import client_round, client_shards
from gkt_core.rounds.client_part import ClientPart, draw_view
from gkt_core.rounds.client_round import client_update
from gkt_core.rounds.feature_source import ShardSource, split_by_client
from gkt_core.wire.shards import (
    ShardSpec,
    SoftLabels,
    read_feature_shard,
    read_soft_labels,
    write_soft_labels,
)

SIZE, CLASSES, ROUNDS = 8, 5, 4
CLIENTS = ("client-b", "client-a", "client-c")
CONFIG = RunConfig(
    num_clients=3,
    rounds=ROUNDS,
    local_epochs=2,
    server_epochs=2,
    batch_size=7,
    server_batch_size=11,
    shard_samples=6,
    crop_padding=2,
    seed=3,
)


class FixedTeacher(nn.Module):
    """Logits are a fixed projection of the features; the parameter exists so that there is one to train."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        generator = torch.Generator().manual_seed(0)
        self.projection = torch.randn(16 * SIZE * SIZE, CLASSES, generator=generator)

    def forward(self, features: Tensor) -> Tensor:
        return features.flatten(1) @ self.projection + 0.0 * self.unused


def features_of(images: NDArray[np.float32]) -> NDArray[np.float32]:
    features = np.zeros((len(images), 16, SIZE, SIZE), np.float32)
    features[:, :3] = images
    return features


def teacher_of(images: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.no_grad():
        logits: Tensor = FixedTeacher()(torch.from_numpy(features_of(images)))
    return np.asarray(logits.numpy())


@dataclass
class RecordingEngine:
    """A device's engine that keeps what its training steps were given."""

    steps: list[tuple[NDArray[np.float32], NDArray[np.float32], float]] = field(default_factory=list)

    def set_learning_rate(self, learning_rate: float) -> None:
        """Nothing is trained."""

    def train_step(
        self,
        images: NDArray[np.float32],
        labels: NDArray[np.int64],
        server_logits: NDArray[np.float32],
        alpha: float,
    ) -> tuple[float, NDArray[np.float32]]:
        self.steps.append((images.copy(), server_logits.copy(), alpha))
        return 1.0, np.zeros((len(images), CLASSES), np.float32)

    def predict(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return features_of(images), np.zeros((len(images), CLASSES), np.float32)


def make_part(client_id: str, num: int, seed: int) -> ClientPart:
    rng = np.random.default_rng(seed)
    # Ids overlap between devices, as they would in the world: they are unique within a device only.
    sample_ids = np.sort(rng.permutation(3 * num)[:num]).astype(np.int64)
    images = rng.integers(0, 256, (num, SIZE, SIZE, 3), dtype=np.uint8)
    samples = Samples(images, rng.integers(0, CLASSES, num), sample_ids)
    return ClientPart(client_id, PrivateData(samples, samples, ("class",) * CLASSES), CONFIG, CLASSES)


def mismatch_over_rounds(look_up: Callable[[SoftLabels], SoftLabels], upload_seed: int) -> float:
    """Run the real protocol without sockets; the largest difference between teacher and images."""
    parts = [make_part(name, 20 + 3 * n, n) for n, name in enumerate(CLIENTS)]
    engines = {part.client_id: RecordingEngine() for part in parts}
    answers: dict[str, SoftLabels | None] = dict.fromkeys(CLIENTS)
    teacher = FixedTeacher()
    optimizer = torch.optim.SGD(teacher.parameters(), lr=0.0)
    spec = ShardSpec("fp32", (16, SIZE, SIZE), CLASSES, CONFIG.shard_samples)
    worst = 0.0
    for round_num in range(1, ROUNDS + 1):
        arrived = []
        for part in parts:
            engine = engines[part.client_id]
            engine.steps.clear()
            client_update(engine, part, answers[part.client_id], round_num)
            for images, server_logits, alpha in engine.steps:
                assert alpha == (0.0 if round_num == 1 else CONFIG.alpha)
                if round_num > 1:
                    worst = max(worst, float(np.abs(server_logits - teacher_of(images)).max()))
            for shard in client_shards.shards(engine, part, round_num, "train"):
                read = read_feature_shard(shard.encode(part), shard.key, spec)
                arrived.append((part.client_id, read))
        order = np.random.default_rng([upload_seed, round_num]).permutation(len(arrived))
        source = ShardSource([arrived[i] for i in order])
        update = server_update(teacher, optimizer, source, CONFIG, round_num=round_num, num_classes=CLASSES)
        for client_id, soft_labels in split_by_client(source, update.server_logits).items():
            data = write_soft_labels(client_id, round_num, soft_labels)
            answers[client_id] = look_up(read_soft_labels(data, client_id, round_num, CLASSES))
    return worst


class ByPosition(SoftLabels):
    """The published reference's mistake: the first rows for the first batch, and so on."""

    def for_samples(self, sample_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        return self.server_logits[: len(sample_ids)]


@pytest.mark.parametrize("upload_seed", [0, 1])
def test_soft_labels_belong_to_the_very_images_of_the_step(upload_seed: int) -> None:
    assert mismatch_over_rounds(lambda soft_labels: soft_labels, upload_seed) < 1e-4


def test_pairing_by_position_is_noticed() -> None:
    wrong = mismatch_over_rounds(lambda s: ByPosition(s.sample_ids, s.server_logits), upload_seed=0)
    assert wrong > 1.0


def test_another_view_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training on view t instead of t-1 would pair the right samples with the wrong crops."""

    def draw_next(
        samples: Samples, rows: NDArray[np.intp], config: RunConfig, client_id: str, round_num: int
    ) -> NDArray[np.float32]:
        return draw_view(samples, rows, config, client_id, round_num + 1)

    # Only where training draws: what is uploaded stays the view of its round.
    monkeypatch.setattr(client_round, "draw_view", draw_next)
    assert mismatch_over_rounds(lambda soft_labels: soft_labels, upload_seed=0) > 1.0
