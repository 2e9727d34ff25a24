"""The losses of Eq. 6 and Eq. 7, with the weight and the factor T^2 that the reference code adds."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Added under roots, whose slope at 0 is none.
DISTANCE_FLOOR = 1e-6
# Images are the same if they are nearer than this share of the mean, squared.
SAME_IMAGE, STEEP = 1e-3, 1e30


def kd_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """``T^2 * KL(softmax(teacher / T) || softmax(student / T))``, mean over the batch.

    Eq. 6 and 7 have the KL term bare; the factor T^2 keeps its gradient's size independent of the
    temperature (Hinton et al. 2015) and is the reference implementation's.

    Logits are raw, ``[N, C]``; the student's are differentiated.
    """
    student = F.log_softmax(student_logits / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits / temperature, dim=1)
    per_sample = (teacher.exp() * (teacher - student)).sum(dim=1)
    return per_sample.mean() * temperature**2


def edge_loss(
    logits: Tensor, labels: Tensor, server_logits: Tensor, alpha: Tensor | float, temperature: float
) -> Tensor:
    """Eq. 7: ``CE + alpha * T^2 * KL(p_s || p_k)``; what a device minimises.

    Args:
        logits: The device's ``[N, C]``.
        labels: ``[N] int64``.
        server_logits: Soft labels of the same samples and the same view, ``[N, C]``, raw.
        alpha: Weight of the distillation; 0 in the first round.
        temperature: T.
    """
    return F.cross_entropy(logits, labels) + alpha * kd_loss(logits, server_logits, temperature)


def distance_correlation(images: Tensor, features: Tensor) -> Tensor:
    """Squared distance correlation of a batch's images and features, 0 to 1 (Szekely et al., 2007).

    How well distances between samples' features say distances between their images; a penalty on it is NoPeek
    (Vepakomma et al., 2020). It does not depend on the scale of either. In standard operators alone, so that
    it can be part of a device's training graph.

    Args:
        images: ``[N, 3, S, S]``.
        features: ``[N, C, H, W]``; differentiated.
    """
    apart, others = _squares_apart(images.flatten(1)), _squares_apart(features.flatten(1))
    # 0 for a sample and itself, where rounding leaves something of both, and for images that are the same.
    differs = ((apart - SAME_IMAGE * apart.mean()) * STEEP).clamp(0, 1)
    theirs, ours = (_centred(torch.sqrt(each + DISTANCE_FLOOR) * differs) for each in (apart, others))
    shared, own, other = (ours * theirs).mean(), (ours * ours).mean(), (theirs * theirs).mean()
    return shared / torch.sqrt(own * other + DISTANCE_FLOOR)


def _squares_apart(rows: Tensor) -> Tensor:
    """Squared distances of all pairs of rows ``[N, D]``: ``[N, N]``."""
    # From their mean: squares of far values would leave little of small differences.
    rows = rows - rows.mean(dim=0, keepdim=True)
    squares = (rows * rows).sum(dim=1, keepdim=True)
    return torch.relu(squares + squares.t() - 2 * rows @ rows.t())


def _centred(distances: Tensor) -> Tensor:
    """Take the means of rows and columns off."""
    by_row, by_column = distances.mean(dim=1, keepdim=True), distances.mean(dim=0, keepdim=True)
    return distances - by_row - by_column + distances.mean()


def randomised_cross_entropy(logits: Tensor, labels: Tensor, epsilons: Tensor) -> Tensor:
    """Cross entropy of labels that went through randomised response, ``[N]``: corrected forward.

    The network's probabilities of the true labels are passed through the chances of the responses, which are
    known (Patrini et al., CVPR 2017): what it learns are the true ones. With epsilon 0 it is the plain one.

    Args:
        logits: ``[N, C]``.
        labels: The responses, ``[N] int64``.
        epsilons: ``[N]``, 0 of labels as they are.
    """
    num_classes = logits.shape[1]
    kept, other = response_chances(epsilons, num_classes)
    own = F.log_softmax(logits, dim=1).gather(1, labels[:, None])[:, 0]
    return -torch.logaddexp(other.log(), (kept - other).log() + own)


def response_chances(epsilons: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Give the chances ``[N]`` that a label stays, and that it becomes a certain other one."""
    kept = 1 / (1 + (num_classes - 1) * torch.exp(-epsilons))
    kept = torch.where(epsilons > 0, kept, torch.ones_like(kept))
    return kept, (1 - kept) / (num_classes - 1)


def server_loss(
    logits: Tensor,
    labels: Tensor,
    client_logits: Tensor,
    alpha: float,
    temperature: float,
    label_smoothing: float = 0.0,
    epsilons: Tensor | None = None,
) -> Tensor:
    """Eq. 6: ``CE + alpha * T^2 * KL(p_k || p_s)``; with ``alpha`` 0 the direction S->E.

    Args:
        logits: The server network's ``[N, C]``.
        labels: ``[N] int64``.
        client_logits: The devices' logits of the same samples, ``[N, C]``, raw.
        alpha: Weight of the distillation.
        temperature: T.
        label_smoothing: Share of the cross entropy that is on all classes alike (Szegedy et al. 2016).
        epsilons: ``[N]``, of randomised labels, 0 of those as they are; None if all are.
    """
    if epsilons is None:
        loss = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    else:
        loss = (1 - label_smoothing) * randomised_cross_entropy(logits, labels, epsilons).mean()
        loss = loss - label_smoothing * F.log_softmax(logits, dim=1).mean()
    return loss + alpha * kd_loss(logits, client_logits, temperature) if alpha else loss
