"""Splitting one dataset over devices: IID, or with Dirichlet label skew."""

from __future__ import annotations

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
    alpha 0.5): each class is shared out in proportions drawn from Dirichlet(alpha); the draw is repeated
    until every device has at least :data:`MIN_SAMPLES_PER_CLIENT` samples.

    Args:
        labels: ``[N] int64``.
        num_clients: Number of devices.
        scheme: ``iid`` or ``dirichlet``.
        alpha: Concentration of the Dirichlet distribution: small means skewed.
        seed: Seed of the draw.

    Returns:
        Sorted indices of each device; together every index once.

    Raises:
        PartitionError: More devices than samples allow, or no draw left every device with samples.
        ConfigError: Unknown scheme or a value out of range.
    """
    if scheme not in SCHEMES:
        raise ConfigError(f"unknown partition {scheme!r}, expected one of {', '.join(SCHEMES)}")
    if num_clients < 1:
        raise ConfigError(f"number of clients is {num_clients}, expected at least 1")
    if seed < 0:
        raise ConfigError(f"seed is {seed}, expected at least 0")
    if scheme == "dirichlet" and not (np.isfinite(alpha) and alpha > 0):
        raise ConfigError(f"dirichlet alpha is {alpha}, expected a positive number")
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
    """Split one device's samples into training and validation positions.

    Args:
        num_samples: Samples of the device, at least 3.
        share: Wanted share of validation samples; at least one, and at least two are left to train on.
        seed: Seed of the draw.

    Returns:
        Sorted positions of training and of validation samples.

    Raises:
        ConfigError: The share is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise ConfigError(f"validation share is {share}, expected a number between 0 and 1")
    num_validation = min(max(1, round(num_samples * share)), num_samples - 2)
    order = np.random.default_rng([seed, 22]).permutation(num_samples)
    return np.sort(order[num_validation:]), np.sort(order[:num_validation])
