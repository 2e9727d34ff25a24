"""The device's half of Algorithm 1 (lines 17 to 30), over any training engine.

ONNX Runtime on a device and PyTorch in a simulation run this same code; only the engine differs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gkt_core.config.run_config import RunConfig
from gkt_core.data.augment import augmented_view, batch_order, batches, to_float_nchw
from gkt_core.data.private_data import Samples
from gkt_core.errors import GKTError, ShardError
from gkt_core.wire.shards import SoftLabels

# Added to a round's number it names a view that no teacher ever sees.
_FRESH_VIEWS = 1 << 32


class TrainingEngine(Protocol):
    """What trains an edge network: ONNX Runtime training, the portable step, or PyTorch."""

    def set_learning_rate(self, learning_rate: float) -> None:
        """Of all steps from now on."""
        ...

    def train_step(
        self,
        images: NDArray[np.float32],
        labels: NDArray[np.int64],
        server_logits: NDArray[np.float32],
        alpha: float,
    ) -> tuple[float, NDArray[np.float32]]:
        """Minimise Eq. 7 on one batch, with one optimizer step.

        Args:
            images: ``[N, 3, S, S] float32`` in 0..1.
            labels: ``[N] int64``.
            server_logits: ``[N, C] float32``, raw.
            alpha: Weight of the distillation.

        Returns:
            The loss before the step, and the logits ``[N, C]`` it was computed from.
        """
        ...

    def predict(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Features ``[N, C, H, W]`` and logits ``[N, classes]`` of ``images``, in eval mode."""
        ...


@dataclass(frozen=True, slots=True)
class ClientUpdate:
    """How local training of one round went.

    Attributes:
        loss: Mean training loss over all samples and epochs.
        accuracy: Share of training samples that the local head got right, 0..1.
        num_steps: Optimizer steps.
    """

    loss: float
    accuracy: float
    num_steps: int


@dataclass(frozen=True, slots=True)
class LocalProgress:
    """How far local training of one round has come; with the engine's state, all that resuming needs.

    Attributes:
        num_steps: Optimizer steps that are done.
        total_loss: Sum of the losses of all samples seen.
        num_right: Samples that the local head got right.
        num_seen: Samples seen.
    """

    num_steps: int = 0
    total_loss: float = 0.0
    num_right: int = 0
    num_seen: int = 0


@dataclass(frozen=True, slots=True)
class Extracted:
    """Features and logits of some samples, ready to be a shard."""

    sample_ids: NDArray[np.int64]
    features: NDArray[np.float32]
    client_logits: NDArray[np.float32]
    labels: NDArray[np.int64]


def client_seed(seed: int, client_id: str) -> int:
    """Seed of one device, from the run's seed and the device's name."""
    digest = hashlib.sha256(f"{seed}/{client_id}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def draw_view(
    samples: Samples, rows: NDArray[np.intp], config: RunConfig, client_id: str, round_num: int
) -> NDArray[np.float32]:
    """Images ``[n, 3, S, S]`` of the view that belongs to ``round_num``."""
    return augmented_view(
        samples.images[rows],
        samples.sample_ids[rows],
        seed=client_seed(config.seed, client_id),
        round_num=round_num,
        crop_padding=config.crop_padding,
        horizontal_flip=config.horizontal_flip,
    )


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """What one optimizer step of a device needs.

    Attributes:
        images: ``[n, 3, S, S] float32`` in 0..1.
        labels: ``[n] int64``.
        server_logits: ``[n, classes] float32``, raw; zeros without a teacher.
        alpha: Weight of the distillation; 0 without a teacher.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    server_logits: NDArray[np.float32]
    alpha: float


def client_batches(
    samples: Samples,
    soft_labels: SoftLabels | None,
    config: RunConfig,
    *,
    client_id: str,
    round_num: int,
    num_classes: int,
    teacher_round: int | None = None,
    skip: int = 0,
) -> Iterator[TrainingBatch]:
    """Batches of a device's local epochs in round t (lines 19 and 20): of view t-1, with its soft labels.

    The view and the soft labels belong together: both were made from the images that the device drew when
    it last took part, in round t-1 unless devices are sampled (``teacher_view = "fresh"`` draws another
    view, to measure what that costs). In the first round there is no teacher, and alpha is 0.

    Args:
        samples: The device's training samples.
        soft_labels: The server's logits for view t-1, or None.
        config: Hyper-parameters.
        client_id: The device.
        round_num: t, from 1.
        num_classes: Width of the logits.
        teacher_round: The round that the soft labels answer, if it is not t-1.
        skip: So many batches at the beginning are left out.

    Raises:
        ShardError: A training sample has no soft label.
    """
    step = 0
    alpha = config.alpha if soft_labels is not None and config.edge_distils else 0.0
    seen_round = round_num - 1 if teacher_round is None else teacher_round
    view_round = seen_round if config.teacher_view == "reused" else round_num - 1 + _FRESH_VIEWS
    for epoch in range(1, config.local_epochs + 1):
        order = batch_order(
            len(samples), seed=client_seed(config.seed, client_id), round_num=round_num, epoch=epoch
        )
        for rows in batches(order, config.batch_size):
            step += 1
            if step <= skip:
                continue
            if alpha and soft_labels is not None:
                teacher = soft_labels.for_samples(samples.sample_ids[rows])
            else:
                teacher = np.zeros((len(rows), num_classes), np.float32)
            images = draw_view(samples, rows, config, client_id, view_round)
            yield TrainingBatch(images, samples.labels[rows], teacher, alpha)


def train_on_batch(
    engine: TrainingEngine, batch: TrainingBatch, round_num: int
) -> tuple[float, NDArray[np.float32]]:
    """One step; the loss before it, and the logits ``[n, classes]`` it was computed from.

    Raises:
        GKTError: The loss is no longer finite.
    """
    loss, logits = engine.train_step(batch.images, batch.labels, batch.server_logits, batch.alpha)
    if not np.isfinite(loss):
        raise GKTError(f"the local loss is {loss} in round {round_num}: training diverged, lower edge_lr")
    return loss, logits


def client_update(
    engine: TrainingEngine,
    samples: Samples,
    soft_labels: SoftLabels | None,
    config: RunConfig,
    *,
    client_id: str,
    round_num: int,
    num_classes: int,
    teacher_round: int | None = None,
    done: LocalProgress | None = None,
    on_batch: Callable[[int], None] = lambda num_images: None,
    on_progress: Callable[[LocalProgress], None] = lambda progress: None,
) -> ClientUpdate:
    """Local training of round t (lines 19 to 21) on the batches of :func:`client_batches`.

    Args:
        engine: Trains the edge network; changed.
        samples: As there.
        soft_labels: As there.
        config: As there.
        client_id: As there.
        round_num: As there.
        num_classes: As there.
        teacher_round: As there.
        done: Where an earlier process left off, whose state the engine has; its steps are not repeated.
        on_batch: Called after each step with the number of images.
        on_progress: Called after each step with how far the round has come.

    Raises:
        ShardError: A training sample has no soft label.
        GKTError: The loss is no longer finite.
    """
    progress = done or LocalProgress()
    if progress.num_seen:
        on_batch(progress.num_seen)
    for batch in client_batches(
        samples,
        soft_labels,
        config,
        client_id=client_id,
        round_num=round_num,
        num_classes=num_classes,
        teacher_round=teacher_round,
        skip=progress.num_steps,
    ):
        loss, logits = train_on_batch(engine, batch, round_num)
        progress = LocalProgress(
            progress.num_steps + 1,
            progress.total_loss + loss * len(batch.labels),
            progress.num_right + int((logits.argmax(axis=1) == batch.labels).sum()),
            progress.num_seen + len(batch.labels),
        )
        on_batch(len(batch.labels))
        on_progress(progress)
    seen = progress.num_seen
    return ClientUpdate(progress.total_loss / seen, progress.num_right / seen, progress.num_steps)


def num_shards(samples: Samples, config: RunConfig) -> int:
    """Shards that these samples make."""
    return -(-len(samples) // config.shard_samples)


def extract(
    engine: TrainingEngine,
    samples: Samples,
    config: RunConfig,
    *,
    client_id: str,
    view_round: int | None,
    only: Sequence[int] | None = None,
) -> Iterator[Extracted]:
    """Features and logits in eval mode (lines 23 to 29), a shard at a time, by ascending sample id.

    Args:
        engine: Predicts; not changed.
        samples: What to extract, training or validation samples.
        config: Hyper-parameters; ``shard_samples`` is the size of a shard.
        client_id: The device.
        view_round: The augmented view to draw, or None for the images as they are.
        only: Indexes of the shards that are wanted, in this order; all by default.

    Raises:
        ShardError: There is no shard of such an index.
    """
    for index in range(num_shards(samples, config)) if only is None else only:
        if not 0 <= index < num_shards(samples, config):
            raise ShardError(f"shard {index} is wanted of {num_shards(samples, config)}")
        begin = index * config.shard_samples
        rows = np.arange(begin, min(begin + config.shard_samples, len(samples)))
        if view_round is None:
            images = to_float_nchw(samples.images[rows])
        else:
            images = draw_view(samples, rows, config, client_id, view_round)
        features, logits = engine.predict(images)
        yield Extracted(samples.sample_ids[rows], features, logits, samples.labels[rows])
