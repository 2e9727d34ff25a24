"""Augmented views: a pure function of (seed, sample_id, round_num), the same in every process and language.

The server's soft labels belong to one view of an image (the paper's implementation pairs them with
another). So a view is never drawn from a stream of random numbers, whose state would have to be kept:
the crop offset and the flip of a sample are hashed from the three numbers that name the view, and any
process can draw it again at any time, in any order, for any subset of samples.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)
# What :func:`view_defaults` does, for a help text.
CROP_PADDING_WORDS = "an eighth of the image's side, or a sixteenth where images are not flipped"


def view_defaults(image_size: int, horizontal_flip: bool) -> dict[str, Any]:
    """Say what views suit images: crops by an eighth of the side, or a sixteenth where none is flipped.

    Args:
        image_size: Height and width in pixels.
        horizontal_flip: Whether a mirrored image is still of its class.
    """
    padding = max(1, image_size // (8 if horizontal_flip else 16))
    return {"crop_padding": padding, "horizontal_flip": horizontal_flip}


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014)."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def view_hash(seed: int, sample_ids: NDArray[np.int64], round_num: int) -> NDArray[np.uint64]:
    """Hash the name of each view of the samples ``[N] int64`` to 64 uniform bits, ``[N] uint64``."""
    with np.errstate(over="ignore"):
        state = _mix(np.asarray([seed], dtype=np.int64).view(np.uint64) + _GOLDEN_GAMMA)
        state = _mix((state ^ np.asarray(sample_ids, dtype=np.int64).view(np.uint64)) + _GOLDEN_GAMMA)
        return _mix((state ^ np.uint64(round_num)) + _GOLDEN_GAMMA)


def view_places(
    sample_ids: NDArray[np.int64], *, seed: int, round_num: int, crop_padding: int, horizontal_flip: bool
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.bool_]]:
    """Say which part of each padded image a view is: its first row and column, and whether it is mirrored.

    Arguments are those of :func:`augmented_view`; what is given is ``[N]`` each. Whoever knows a run's seed
    can tell, without an image, how two views of one sample lie to each other.
    """
    bits = view_hash(seed, sample_ids, round_num)
    offsets = 2 * crop_padding + 1
    top = ((bits & np.uint64(0xFFFFFF)) % np.uint64(offsets)).astype(np.intp)
    left = (((bits >> np.uint64(24)) & np.uint64(0xFFFFFF)) % np.uint64(offsets)).astype(np.intp)
    return top, left, (bits >> np.uint64(63)).astype(bool) & horizontal_flip


def augmented_view(
    images: NDArray[np.uint8],
    sample_ids: NDArray[np.int64],
    *,
    seed: int,
    round_num: int,
    crop_padding: int,
    horizontal_flip: bool,
) -> NDArray[np.float32]:
    """Draw the view of each image that belongs to a round (section 4.1: random crop and flip).

    The crop pads with black, as torchvision's ``RandomCrop`` does before normalisation. Normalisation
    itself is inside every exported graph.

    Args:
        images: ``[N, S, S, 3] uint8``.
        sample_ids: ``[N] int64``.
        seed: Seed of the run.
        round_num: The round that the view belongs to.
        crop_padding: Pixels of padding on each side; 0 for no crop.
        horizontal_flip: Whether half of the views are mirrored.

    Returns:
        ``[N, 3, S, S] float32`` in 0..1.
    """
    num, size = images.shape[0], images.shape[1]
    top, left, flip = view_places(
        sample_ids,
        seed=seed,
        round_num=round_num,
        crop_padding=crop_padding,
        horizontal_flip=horizontal_flip,
    )
    padded = np.pad(images, ((0, 0), (crop_padding, crop_padding), (crop_padding, crop_padding), (0, 0)))
    columns = np.arange(size)
    columns = np.where(flip[:, None], columns[::-1][None, :], columns[None, :]) + left[:, None]
    rows = np.arange(size)[None, :] + top[:, None]
    view = padded[np.arange(num)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return to_float_nchw(view)


def to_float_nchw(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Make of ``[N, S, S, 3] uint8`` what networks take: ``[N, 3, S, S] float32`` in 0..1, contiguous."""
    scaled = images.transpose(0, 3, 1, 2).astype(np.float32)
    scaled /= np.float32(255.0)
    return np.ascontiguousarray(scaled)


def batch_order(num_examples: int, *, seed: int, round_num: int, epoch: int) -> NDArray[np.intp]:
    """Give the order in which one epoch visits the samples, the same on every machine.

    Args:
        num_examples: Length of the permutation.
        seed: Seed of the run, with whatever tells this owner's order from another's mixed in.
        round_num: From 1.
        epoch: Within the round, from 1.
    """
    keys = view_hash(seed ^ 0x6F72646572, np.arange(num_examples, dtype=np.int64), round_num * 65536 + epoch)
    return np.argsort(keys, kind="stable")


def batches(order: NDArray[np.intp], batch_size: int) -> list[NDArray[np.intp]]:
    """Cut an epoch's order into batches; a last batch of one sample joins the batch before it.

    A batch of one has no batch statistics, and dropping it would train on one sample fewer. ``batch_size`` is
    at least 2.
    """
    cuts = list(range(batch_size, len(order), batch_size))
    if cuts and len(order) - cuts[-1] == 1:
        cuts.pop()
    return np.split(order, cuts)
