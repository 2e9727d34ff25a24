"""The losses of Eq. 6 and Eq. 7, with the weight and the factor T^2 that the reference code adds."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


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


def server_loss(
    logits: Tensor,
    labels: Tensor,
    client_logits: Tensor,
    alpha: float,
    temperature: float,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Eq. 6: ``CE + alpha * T^2 * KL(p_k || p_s)``; with ``alpha`` 0 the direction S->E.

    Args:
        logits: The server network's ``[N, C]``.
        labels: ``[N] int64``.
        client_logits: The devices' logits of the same samples, ``[N, C]``, raw.
        alpha: Weight of the distillation.
        temperature: T.
        label_smoothing: Share of the cross entropy that is on all classes alike (Szegedy et al. 2016).
    """
    loss = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    return loss + alpha * kd_loss(logits, client_logits, temperature) if alpha else loss
