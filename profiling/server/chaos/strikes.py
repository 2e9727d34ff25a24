"""When what is killed: drawn from a seed, and told by how far the run is, not by the clock.

A kill sets a run back by seconds. By the clock, kills would therefore crowd in a run's first rounds, or come
faster than anything gets done; by progress they spread over all of it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from gkt_core.wire.protocol import TrainerProgress
from server_app.rounds.state import Phase, RunState

SERVER, TRAINER, DEVICE = "server", "trainer", "device"
VICTIMS = (SERVER, TRAINER, DEVICE)
# Each kill waits so long at most after its moment, so that it hits any place of what runs then.
LONGEST_DELAY_SECONDS = 1.5
# Share of all kills that comes on top in the last round, which may be over before they come.
_LAST_ROUND_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Kill:
    """One SIGKILL.

    Attributes:
        at: How much of the run is done by then, 0..1.
        delay_seconds: How much later it comes.
        victim: ``server``, ``trainer`` or ``device``.
        choice: 0..1, picks the device.
    """

    at: float
    delay_seconds: float
    victim: str
    choice: float


def draw_kills(num_kills: int, rounds: int, seed: int) -> list[Kill]:
    """Draw kills by ascending moment; every kind of process is killed.

    Args:
        num_kills: That happen before the last round; at least 3, to hit every kind of process.
        rounds: Of the run, at least 2.
        seed: Of all that is random here.
    """
    rng = random.Random(seed)
    before_last = (rounds - 1) / rounds
    num_last = max(1, round(num_kills * _LAST_ROUND_SHARE))
    moments = sorted(rng.uniform(0, before_last) for _ in range(num_kills))
    moments += sorted(rng.uniform(before_last, 1) for _ in range(num_last))
    victims = [*VICTIMS, *rng.choices(VICTIMS, k=num_kills - len(VICTIMS))]
    rng.shuffle(victims)
    victims += rng.choices(VICTIMS, k=num_last)
    return [
        Kill(at, rng.uniform(0, LONGEST_DELAY_SECONDS), victim, rng.random())
        for at, victim in zip(moments, victims, strict=True)
    ]


def share_done(state: RunState, progress: TrainerProgress | None) -> float:
    """How much of a run is done, 0..1: a round is half its devices' part and half the trainer's."""
    within = 0.0
    match state.phase:
        case Phase.JOINING:
            return 0.0
        case Phase.FINISHED | Phase.FAILED:
            return 1.0
        case Phase.COLLECTING:
            within = 0.5 * len(state.reported) / max(1, len(state.selected))
        case Phase.READY:
            within = 0.5
        case Phase.TRAINING:
            within = 0.5
            if progress is not None and progress.round_num == state.round_num:
                within += 0.5 * (progress.epoch - 1) / progress.epochs
    return (state.round_num - 1 + within) / state.rounds
