"""A device's local training in a round (Algorithm 1, lines 17 to 21), over any training engine.

ONNX Runtime on a device and PyTorch in a simulation run this same code; only the engine differs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gkt_core.data.augment import batch_order, batches
from gkt_core.errors import GKTError
from gkt_core.rounds.client_part import ClientPart, client_seed, draw_view
from gkt_core.rounds.engine import TrainingEngine
from gkt_core.rounds.learning_rate import LearningRate
from gkt_core.wire.shards import SoftLabels

# Added to a round's number it names a view that no teacher ever sees.
_FRESH_VIEWS = 1 << 32


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

    @property
    def loss(self) -> float:
        """Mean training loss of the samples seen."""
        return self.total_loss / self.num_seen

    @property
    def accuracy(self) -> float:
        """Share of the samples seen that the local head got right, 0..1."""
        return self.num_right / self.num_seen


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """What one optimizer step of a device needs.

    Attributes:
        images: ``[n, 3, S, S] float32`` in 0..1.
        labels: ``[n] int64``.
        server_logits: ``[n, classes] float32``, raw; zeros without a teacher.
        alpha: Weight of the distillation; 0 where a sample of the batch has no teacher.
        learning_rate: Of this step.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    server_logits: NDArray[np.float32]
    alpha: float
    learning_rate: float


def client_batches(
    part: ClientPart,
    soft_labels: SoftLabels | None,
    round_num: int,
    *,
    teacher_round: int | None = None,
    learning_rate_scale: float = 1.0,
    skip: int = 0,
) -> Iterator[TrainingBatch]:
    """Make a device's batches in round t (lines 19 and 20): of view t-1, with its soft labels.

    The view and the soft labels belong together: both were made from the images that the device drew when
    it last took part, in round t-1 unless devices are sampled (``teacher_view = "fresh"`` draws another
    view, to measure what that costs). In the first round there is no teacher, and alpha is 0. Samples that
    came to the data since the teacher saw them have none either: they share batches of their own.

    Args:
        part: The device's.
        soft_labels: The server's logits for view t-1, or None.
        round_num: t, from 1.
        teacher_round: The round of the upload that the soft labels answer, if it is not t-1.
        learning_rate_scale: What the learning rate is multiplied with in this round.
        skip: So many batches at the beginning are left out.

    Raises:
        ShardError: A training sample that should have a soft label has none.
    """
    samples, config = part.data.train, part.config
    step = 0
    alpha = config.alpha if soft_labels is not None and config.edge_distils else 0.0
    seen_round = round_num - 1 if teacher_round is None else teacher_round
    # Where uploads are rare, a device that nobody teaches has no reason to see one view again and again.
    is_reused = config.teacher_view == "reused" and (config.edge_distils or config.uploads_every_round)
    view_round = seen_round if is_reused else round_num - 1 + _FRESH_VIEWS
    seed = client_seed(config.seed, part.client_id)
    untaught = part.untaught(seen_round)
    rate = LearningRate.of_round(config, config.edge_lr * learning_rate_scale, round_num)
    for epoch in range(1, config.local_epochs + 1):
        all_rows = _rows_of_epoch(untaught, config.batch_size, seed, round_num, epoch)
        num_steps = config.local_epochs * len(all_rows)
        for rows in all_rows:
            step += 1
            if step <= skip:
                continue
            batch_alpha = 0.0 if untaught[rows].any() else alpha
            if batch_alpha and soft_labels is not None:
                teacher = soft_labels.for_samples(samples.sample_ids[rows])
            else:
                teacher = np.zeros((len(rows), part.num_classes), np.float32)
            images = draw_view(samples, rows, config, part.client_id, view_round)
            yield TrainingBatch(
                images, samples.labels[rows], teacher, batch_alpha, rate.at(step - 1, num_steps)
            )


def _rows_of_epoch(
    untaught: NDArray[np.bool_], batch_size: int, seed: int, round_num: int, epoch: int
) -> list[NDArray[np.intp]]:
    """Cut an epoch into batches; samples without a teacher come together, as alpha is a batch's."""
    order = batch_order(len(untaught), seed=seed, round_num=round_num, epoch=epoch)
    if untaught.all() or not untaught.any():
        return batches(order, batch_size)
    # The batch at the seam, if it holds both kinds, has no teacher: one of an epoch.
    cut = batches(order[np.argsort(untaught[order], kind="stable")], batch_size)
    return [cut[each] for each in batch_order(len(cut), seed=seed, round_num=round_num, epoch=epoch)]


def train_on_batch(
    engine: TrainingEngine, batch: TrainingBatch, round_num: int
) -> tuple[float, NDArray[np.float32]]:
    """Take one step; the loss before it, and the logits ``[n, classes]`` it was computed from.

    Raises:
        GKTError: The loss is no longer finite.
    """
    engine.set_learning_rate(batch.learning_rate)
    loss, logits = engine.train_step(batch.images, batch.labels, batch.server_logits, batch.alpha)
    if not np.isfinite(loss):
        raise GKTError(f"the local loss is {loss} in round {round_num}: training diverged, lower edge_lr")
    return loss, logits


def client_update(
    engine: TrainingEngine,
    part: ClientPart,
    soft_labels: SoftLabels | None,
    round_num: int,
    *,
    teacher_round: int | None = None,
    learning_rate_scale: float = 1.0,
    done: LocalProgress | None = None,
    on_batch: Callable[[int], None] = lambda num_images: None,
    on_progress: Callable[[LocalProgress], None] = lambda progress: None,
) -> LocalProgress:
    """Train in round t (lines 19 to 21) on the batches of :func:`client_batches`.

    With ``done``, where an earlier process left off whose state the engine has, its steps are not repeated.
    After each step ``on_batch`` is called with the number of images, and ``on_progress``.

    Raises:
        ShardError: A training sample that should have a soft label has none.
        GKTError: The loss is no longer finite.
    """
    progress = done or LocalProgress()
    if progress.num_seen:
        on_batch(progress.num_seen)
    rest = client_batches(
        part,
        soft_labels,
        round_num,
        teacher_round=teacher_round,
        learning_rate_scale=learning_rate_scale,
        skip=progress.num_steps,
    )
    for batch in rest:
        loss, logits = train_on_batch(engine, batch, round_num)
        progress = LocalProgress(
            progress.num_steps + 1,
            progress.total_loss + loss * len(batch.labels),
            progress.num_right + int((logits.argmax(axis=1) == batch.labels).sum()),
            progress.num_seen + len(batch.labels),
        )
        on_batch(len(batch.labels))
        on_progress(progress)
    return progress
