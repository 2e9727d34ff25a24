"""Which devices take part in a round."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def sample_clients(client_ids: Sequence[str], fraction: float, *, seed: int, round_num: int) -> list[str]:
    """Draw ``max(C * K, 1)`` of ``K`` devices uniformly (McMahan et al., AISTATS 2017, Algorithm 1).

    C is ``fraction``, above 0 and at most 1. Every round draws anew; the ids come sorted.
    """
    num = max(1, math.floor(fraction * len(client_ids) + 1e-9))
    drawn = np.random.default_rng([seed, 31, round_num]).permutation(len(client_ids))[:num]
    return sorted(client_ids[place] for place in drawn)
