"""How much a device's features have changed since its last upload, on a few fixed samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gkt_core.data.augment import to_float_nchw
from gkt_core.rounds.client_part import ClientPart
from gkt_core.rounds.engine import TrainingEngine

DRIFT_SAMPLES = 64


def fixed_features(engine: TrainingEngine, part: ClientPart) -> NDArray[np.float32]:
    """Compute the features ``[n, C, H, W]`` of a device's first samples, as the images are."""
    return engine.predict(to_float_nchw(part.data.train.images[:DRIFT_SAMPLES]))[0]


def relative_change(before: NDArray[np.float32], after: NDArray[np.float32]) -> float:
    """Compute ``|after - before| / |before|`` over all values; infinite where all were 0 and are not."""
    difference = float(np.linalg.norm((after.astype(np.float64) - before).ravel()))
    scale = float(np.linalg.norm(before.astype(np.float64).ravel()))
    if scale == 0:
        return 0.0 if difference == 0 else float("inf")
    return difference / scale


def uploads_now(
    engine: TrainingEngine,
    part: ClientPart,
    round_num: int,
    last_round: int,
    then: NDArray[np.float32] | None,
) -> bool:
    """Say whether a device uploads after its training in a round.

    Args:
        engine: Trained.
        part: The device's.
        round_num: From 1.
        last_round: The round of the last upload that the server has of it; 0 for none.
        then: What :func:`fixed_features` gave for that one; None if it is not known.
    """
    schedule = part.config.upload_schedule
    drift = None
    if schedule.drift is not None and then is not None:
        drift = relative_change(then, fixed_features(engine, part))
    return schedule.is_due(round_num, last_round, drift)
