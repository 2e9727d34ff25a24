"""What befalls a run, and when: drawn from a seed, and told by how far the run is, not by the clock.

A kill sets a run back by seconds. By the clock, strikes would therefore crowd in a run's first rounds, or
come faster than anything gets done; by progress they spread over all of it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from gkt_core.wire.protocol import TrainerProgress
from server_app.rounds.state import Phase, RunState

SERVER, TRAINER, DEVICE = "server", "trainer", "device"
VICTIMS = (SERVER, TRAINER, DEVICE)
SHARD, CHECKPOINT = "shard", "epoch checkpoint"
KILL, STOP, DAMAGE, REMOVE, FILL, CLOCK = "kill", "stop", "damage", "remove", "fill", "clock"
# Every kind comes before one comes again; kills and stops of all processes, damage of all that is restored.
KINDS: tuple[tuple[str, str], ...] = (
    *((KILL, victim) for victim in VICTIMS),
    *((STOP, victim) for victim in VICTIMS),
    (DAMAGE, SHARD),
    (REMOVE, SHARD),
    (DAMAGE, CHECKPOINT),
    (FILL, "disk"),
    (CLOCK, "clock"),
)
# Each strike waits so long at most after its moment, so that it hits any place of what runs then.
LONGEST_DELAY_SECONDS = 1.5
# A stopped process goes on, and a full disk is emptied, after so long at most.
LONGEST_HOLD_SECONDS = 6.0
# The clock goes two days forward or back at most.
FARTHEST_CLOCK_SECONDS = 2 * 86_400.0
# Share of all strikes that comes on top in the last round, as kills: it may be over before they come.
_LAST_ROUND_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Strike:
    """One thing that befalls a run.

    Attributes:
        at: How much of the run is done by then, 0..1.
        delay_seconds: How much later it comes.
        kind: ``kill``, ``stop``, ``damage``, ``remove``, ``fill`` or ``clock``.
        victim: Which process or file; ``disk`` or ``clock``.
        choice: 0..1, picks the device, the file or the way.
        hold_seconds: How long a stop or a full disk lasts.
    """

    at: float
    delay_seconds: float
    kind: str
    victim: str
    choice: float
    hold_seconds: float


def draw_strikes(num_strikes: int, rounds: int, seed: int, *, fills: bool = True) -> list[Strike]:
    """Draw strikes by ascending moment; every kind comes, where there are enough.

    Args:
        num_strikes: That happen before the last round.
        rounds: Of the run, at least 2.
        seed: Of all that is random here.
        fills: Whether the disk can be filled here; a kill comes in place of it.
    """
    rng = random.Random(seed)
    before_last = (rounds - 1) / rounds
    num_last = max(1, round(num_strikes * _LAST_ROUND_SHARE))
    moments = sorted(rng.uniform(0, before_last) for _ in range(num_strikes))
    moments += sorted(rng.uniform(before_last, 1) for _ in range(num_last))
    kinds = rng.sample(KINDS, k=min(num_strikes, len(KINDS)))
    kinds += rng.choices(KINDS, k=num_strikes - len(kinds))
    rng.shuffle(kinds)
    kinds += [(KILL, rng.choice(VICTIMS)) for _ in range(num_last)]
    if not fills:
        kinds = [(KILL, SERVER) if kind == FILL else (kind, victim) for kind, victim in kinds]
    return [
        Strike(
            at,
            rng.uniform(0, LONGEST_DELAY_SECONDS),
            kind,
            victim,
            rng.random(),
            rng.uniform(1, LONGEST_HOLD_SECONDS),
        )
        for at, (kind, victim) in zip(moments, kinds, strict=True)
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
