"""How learning rates change over a run, the same for devices, server and simulation.

A rate is a function of the place in the run, and of the validation accuracies so far: nothing of it is saved,
and a resumed run has the same rates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from gkt_core.config.run_config import RunConfig

# A cosine that ends at 0 would waste the last round.
_COSINE_END = 0.01
# Where a rate rises from; in which share of the run it does in one cycle, unless a warm-up is given; its end.
_WARMUP_BEGIN, ONE_CYCLE_WARMUP, _ONE_CYCLE_END = 0.04, 0.3, 0.001


def learning_rate_scale(config: RunConfig, round_num: int, validation_accuracies: Sequence[float]) -> float:
    """Compute what all learning rates are multiplied with in a round (section 4.1: reduced on a plateau).

    This is what changes from round to round: plateaus, and ``cosine``. What changes from step to step is
    :class:`LearningRate`. Accuracies are those of the finished rounds, oldest first.
    """
    scale, best, waited = 1.0, -1.0, 0
    for accuracy in validation_accuracies if config.plateau_patience else ():
        best, waited = (accuracy, 0) if accuracy > best else (best, waited + 1)
        if waited >= config.plateau_patience:
            scale, waited = scale * config.plateau_factor, 0
    if config.lr_schedule == "cosine":
        scale *= _cosine((round_num - 1) / max(1, config.rounds - 1))
    return scale


def schedule_at(schedule: str, warmup: float, progress: float) -> float:
    """Compute what a learning rate is multiplied with at a place in the run; above 0 and at most 1.

    Args:
        schedule: Of ``RunConfig.lr_schedule``; those of whole rounds give 1 after the warm-up.
        warmup: Share of the run in which the rate rises to its full value, from 0 to below 1.
        progress: Share of the run that is done, 0..1.
    """
    if schedule == "one_cycle":
        warmup = warmup or ONE_CYCLE_WARMUP
    if progress < warmup:
        return _WARMUP_BEGIN + (1 - _WARMUP_BEGIN) * progress / warmup
    rest = (progress - warmup) / (1 - warmup)
    if schedule == "one_cycle":
        return 1 - (1 - _ONE_CYCLE_END) * rest
    return _cosine(rest) if schedule == "cosine_by_step" else 1.0


def _cosine(progress: float) -> float:
    return _COSINE_END + (1 - _COSINE_END) * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True, slots=True)
class LearningRate:
    """The learning rate of each step of a part of a run, such as a round; as it stands, of a whole run.

    Attributes:
        base: The full rate.
        schedule: Of ``RunConfig.lr_schedule``.
        warmup: Share of the run in which the rate rises.
        begin: Share of the run that is done when the part begins.
        length: Share of the run that the part is.
    """

    base: float
    schedule: str = "constant"
    warmup: float = 0.0
    begin: float = 0.0
    length: float = 1.0

    @classmethod
    def of_round(cls, config: RunConfig, base: float, round_num: int) -> LearningRate:
        """Make the rates of a round, from 1; ``base`` is scaled by :func:`learning_rate_scale` already."""
        return cls.of_run(config, base).part(round_num - 1, config.rounds)

    @classmethod
    def of_run(cls, config: RunConfig, base: float) -> LearningRate:
        """Make the rates of a whole run."""
        return cls(base, config.lr_schedule, config.lr_warmup)

    def part(self, first: int, num: int, size: int = 1) -> LearningRate:
        """Cut into ``num`` equal parts, and give ``size`` of them from number ``first``, from 0."""
        return replace(self, begin=self.begin + self.length * first / num, length=self.length * size / num)

    def at(self, step: int, num_steps: int) -> float:
        """Give the rate of a step, from 0, of the ``num_steps`` that the part has."""
        progress = min(1.0, self.begin + self.length * step / num_steps)
        return self.base * schedule_at(self.schedule, self.warmup, progress)
