"""How learning rates fall over the rounds of a run, the same for devices, server and simulation."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gkt_core.config.run_config import RunConfig

# A cosine that ends at 0 would waste the last round.
_COSINE_END = 0.01


def learning_rate_scale(config: RunConfig, round_num: int, validation_accuracies: Sequence[float]) -> float:
    """Compute what all learning rates are multiplied with in a round (section 4.1: reduced on a plateau).

    A function of the history, not of a scheduler's state: a resumed run gets the same rates. Accuracies are
    those of the finished rounds, oldest first.
    """
    scale, best, waited = 1.0, -1.0, 0
    for accuracy in validation_accuracies if config.plateau_patience else ():
        best, waited = (accuracy, 0) if accuracy > best else (best, waited + 1)
        if waited >= config.plateau_patience:
            scale, waited = scale * config.plateau_factor, 0
    if config.lr_schedule == "cosine":
        progress = (round_num - 1) / max(1, config.rounds - 1)
        scale *= _COSINE_END + (1 - _COSINE_END) * (1 + math.cos(math.pi * progress)) / 2
    return scale
