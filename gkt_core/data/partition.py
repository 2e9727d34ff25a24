"""Splitting one dataset over devices: IID, or with Dirichlet label skew."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gkt_core.errors import ConfigError, PartitionError

SCHEMES = ("iid", "dirichlet")
MIN_SAMPLES_PER_CLIENT = 4
_MAX_DRAWS = 200


def partition(
    labels: NDArray[np.int64], num_clients: int, *, scheme: str = "iid", alpha: float = 0.5, seed: int = 0
) -> list[NDArray[np.intp]]:
    """Assign every sample to one device.

    IID: a random permutation in equal parts. Dirichlet (Hsu et al. 2019; the paper's non-IID setting with
    alpha 0.5): each class is shared out in proportions drawn from Dirichlet(alpha), where a small alpha means
    skewed; the draw is repeated until every device has at least :data:`MIN_SAMPLES_PER_CLIENT` samples.

    Returns:
        Sorted indices of each device; together every index of ``labels [N] int64`` once.

    Raises:
        ConfigError: No device, an unknown scheme, or an alpha or a seed out of range.
        PartitionError: More devices than samples allow, or no draw left every device with samples.
    """
    if num_clients < 1:
        raise ConfigError(f"num_clients is {num_clients}, expected at least 1")
    if scheme not in SCHEMES:
        raise ConfigError(f"scheme is {scheme!r}, expected one of {', '.join(SCHEMES)}")
    if scheme == "dirichlet" and not (math.isfinite(alpha) and alpha > 0):
        raise ConfigError(f"alpha is {alpha}, expected a finite number above 0")
    _check_seed(seed)
    if num_clients * MIN_SAMPLES_PER_CLIENT > len(labels):
        raise PartitionError(
            f"{num_clients} clients and {len(labels)} training images: each client needs at least "
            f"{MIN_SAMPLES_PER_CLIENT}, so at most {len(labels) // MIN_SAMPLES_PER_CLIENT} clients"
        )
    rng = np.random.default_rng([seed, 21])
    if scheme == "iid":
        return [np.sort(part) for part in np.array_split(rng.permutation(len(labels)), num_clients)]
    for _ in range(_MAX_DRAWS):
        parts = _dirichlet_draw(labels, num_clients, alpha, rng)
        if min(len(part) for part in parts) >= MIN_SAMPLES_PER_CLIENT:
            return parts
    raise PartitionError(
        f"no Dirichlet({alpha}) draw of {_MAX_DRAWS} left each of {num_clients} clients at least "
        f"{MIN_SAMPLES_PER_CLIENT} of {len(labels)} images: raise alpha, or take fewer clients"
    )


def _check_seed(seed: int) -> None:
    if seed < 0:
        raise ConfigError(f"seed is {seed}, expected at least 0")


def _dirichlet_draw(
    labels: NDArray[np.int64], num_clients: int, alpha: float, rng: np.random.Generator
) -> list[NDArray[np.intp]]:
    owned: list[list[NDArray[np.intp]]] = [[] for _ in range(num_clients)]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        shares = rng.dirichlet(np.full(num_clients, alpha))
        cuts = np.floor(np.cumsum(shares)[:-1] * len(members)).astype(np.intp)
        for client, part in enumerate(np.split(members, cuts)):
            owned[client].append(part)
    return [np.sort(np.concatenate(parts)) for parts in owned]


def hold_out(num_samples: int, share: float, *, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Split the samples of one device, at least 3, into sorted positions to train on and to validate on.

    Whatever the share, at least one sample validates, and at least two are left to train on.

    Raises:
        ConfigError: The share is not between 0 and 1, or the seed is below 0.
        PartitionError: There are fewer than 3 samples.
    """
    if not 0 < share < 1:
        raise ConfigError(f"validation share is {share}, expected above 0 and below 1")
    _check_seed(seed)
    if num_samples < 3:
        raise PartitionError(f"{num_samples} samples cannot be split: 2 train and 1 validates at least")
    num_validation = min(max(1, round(num_samples * share)), num_samples - 2)
    order = np.random.default_rng([seed, 22]).permutation(num_samples)
    return np.sort(order[num_validation:]), np.sort(order[:num_validation])
