"""Extractors that devices share: what travels of them, and their mean, which all begin the next round from.

FedAvg (McMahan et al., AISTATS 2017, Algorithm 1) of the part of the network that makes features: weights and
running statistics, weighted by training samples. The local head stays a device's own. Who sees an extractor
can tell more from features, and something of what it was trained on: a run says that it shares them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gkt_core.bundle.manifest import TensorSlot
from gkt_core.bundle.template import EXTRACTOR_PREFIX
from gkt_core.data.augment import to_float_nchw
from gkt_core.errors import ShardError
from gkt_core.rounds.client_part import ClientPart
from gkt_core.rounds.engine import DeviceEngine
from gkt_core.wire.shard_checks import check_layout, check_magnitude, check_metadata
from gkt_core.wire.shard_file import MAX_HEADER_BYTES, parse, serialise

Extractor = Mapping[str, NDArray[np.float32]]

# In place of a split, in the path of a device's own extractor.
EXTRACTOR_SPLIT = "extractor"
# Beyond what any training that went well gives a weight or a running statistic.
MOST_WEIGHT = 1e4
_TRIED_SAMPLES = 8
_VARIANCE = ".running_var"
# Of the norm of what devices began from: how far one may move a mean, and beyond what it is left out. Honest
# ones were at 0.02 in their first round.
_MOST_CHANGE, _FAR_OFF = 0.5, 10.0
# The same of the middle one of so many devices' changes; honest ones were below 2.
_ENOUGH_TO_COMPARE, _MOST_OF_USUAL, _FAR_OF_USUAL = 4, 4.0, 20.0


@dataclass(frozen=True, slots=True)
class ExtractorSpec:
    """What the extractor of a run is.

    Attributes:
        shapes: Of its tensors by their PyTorch names, sorted: the order in which they travel.
    """

    shapes: tuple[tuple[str, tuple[int, ...]], ...]

    @classmethod
    def of_slots(cls, slots: Mapping[str, TensorSlot]) -> ExtractorSpec:
        """Read it from the tensors of a bundle's combined template."""
        names = sorted(name for name in slots if name.startswith(EXTRACTOR_PREFIX))
        return cls(tuple((name, tuple(slots[name].shape)) for name in names))

    @classmethod
    def of_arrays(cls, arrays: Extractor) -> ExtractorSpec:
        """Read it from a network's own weights; those of the local head are left out."""
        names = sorted(name for name in arrays if name.startswith(EXTRACTOR_PREFIX))
        return cls(tuple((name, arrays[name].shape) for name in names))

    @property
    def num_values(self) -> int:
        """Of all tensors together."""
        return sum(math.prod(shape) for _, shape in self.shapes)

    @property
    def max_bytes(self) -> int:
        """Of a file; no valid one has more."""
        return 8 + MAX_HEADER_BYTES + 4 * self.num_values

    def flat(self, arrays: Extractor) -> NDArray[np.float32]:
        """Put the extractor's tensors behind each other, ``[P]``."""
        return np.concatenate([np.asarray(arrays[name], np.float32).reshape(-1) for name, _ in self.shapes])

    def tensors(self, flat: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Undo :meth:`flat`."""
        tensors, begin = {}, 0
        for name, shape in self.shapes:
            end = begin + math.prod(shape)
            tensors[name] = np.array(flat[begin:end], np.float32).reshape(shape)
            begin = end
        return tensors


def write_extractor(spec: ExtractorSpec, arrays: Extractor, client_id: str, round_num: int) -> bytes:
    """Write an extractor as it was after a round; ``client_id`` is empty for the mean.

    Raises:
        ShardError: A value is not finite, or far too large.
    """
    flat = spec.flat(arrays)
    check_magnitude("weights of the extractor", flat, MOST_WEIGHT)
    return serialise({"extractor": flat}, _metadata(client_id, round_num))


def read_extractor(
    data: bytes | NDArray[np.uint8], spec: ExtractorSpec, client_id: str, round_num: int
) -> dict[str, NDArray[np.float32]]:
    """Read an extractor that somebody else sent.

    Raises:
        ShardError: It is another network's, device's or round's, or holds values that no training gives.
    """
    tensors, metadata = parse(data)
    check_metadata(metadata, _metadata(client_id, round_num))
    check_layout(tensors, {"extractor": ("float32", (spec.num_values,))})
    check_magnitude("weights of the extractor", tensors["extractor"], MOST_WEIGHT)
    extractor = spec.tensors(tensors["extractor"])
    for name, values in extractor.items():
        if name.endswith(_VARIANCE) and values.min(initial=0) < 0:
            raise ShardError(f"{name} holds {values.min():.3g}: a variance is never negative")
    return extractor


def mean_extractor(
    spec: ExtractorSpec, parts: Sequence[tuple[int, Extractor]], begun: Extractor | None = None
) -> dict[str, NDArray[np.float32]]:
    """Average extractors, each weighted by its device's training samples, in the order given.

    No device moves the mean further than the others could: of one that changed far more, the change is made
    shorter (norm clipping: Sun et al., Can You Really Backdoor Federated Learning?, 2019).

    Args:
        spec: What the extractor is.
        parts: Training samples and extractor of each device.
        begun: What all of them began the round from; None where nobody knows it.
    """
    total = sum(num for num, _ in parts)
    flats = [spec.flat(arrays).astype(np.float64) for _, arrays in parts]
    reference, norms, longest, _ = _changes(spec, flats, begun)
    mean = np.zeros(spec.num_values, np.float64)
    for (num, _), flat, norm in zip(parts, flats, norms, strict=True):
        kept = flat if norm <= longest else reference + (flat - reference) * (longest / norm)
        mean += kept * (num / total)
    return spec.tensors(mean.astype(np.float32))


def far_extractors(
    spec: ExtractorSpec, own: Mapping[str, Extractor], begun: Extractor | None = None
) -> dict[str, str]:
    """Name the devices whose extractors no training gives, and say why.

    Args:
        spec: What the extractor is.
        own: Each device's.
        begun: As of :func:`mean_extractor`.
    """
    names = sorted(own)
    if not names:
        return {}
    flats = [spec.flat(own[each]).astype(np.float64) for each in names]
    _, norms, _, farthest = _changes(spec, flats, begun)
    return {
        client_id: (
            f"its extractor changed by {norm:.3g} (norm of the change) in one round, at most {farthest:.3g} "
            "is what training gives here: its learning rate is far too high, or it did not train this"
        )
        for client_id, norm in zip(names, norms, strict=True)
        if norm > farthest
    }


def _changes(
    spec: ExtractorSpec, flats: Sequence[NDArray[np.float64]], begun: Extractor | None
) -> tuple[NDArray[np.float64], list[float], float, float]:
    """What devices began from, how far each came, how far it may move the mean, and what is far off."""
    # Nearly all begin alike: in the middle of at least three is none that one of them has chosen.
    reference = np.zeros(spec.num_values, np.float64)
    if begun is not None:
        reference = spec.flat(begun).astype(np.float64)
    elif len(flats) > 2:
        reference = np.median(flats, axis=0)
    norms = [float(np.linalg.norm(flat - reference)) for flat in flats]
    # Where nobody knows what it began from, an extractor is its own change.
    own = math.sqrt(spec.num_values) * (1.0 if reference.any() else 2.0)
    scale = max(float(np.linalg.norm(reference)), own)
    longest, farthest = _MOST_CHANGE * scale, _FAR_OFF * scale
    usual = float(np.median(norms))
    if len(norms) >= _ENOUGH_TO_COMPARE and usual > 0:
        longest = min(longest, _MOST_OF_USUAL * usual)
        # One with few samples hardly changes anything, and is no measure where all others do the same.
        farthest = min(farthest, max(_FAR_OF_USUAL * usual, _MOST_CHANGE * scale))
    return reference, norms, longest, farthest


def take_mean(
    engine: DeviceEngine, part: ClientPart, spec: ExtractorSpec, data: bytes, round_num: int
) -> str:
    """Let a device go on from the mean of a round, unless nothing can be trained behind it.

    Args:
        engine: The device's; where nothing can, it has its own extractor as before.
        part: Of whose validation samples some are tried.
        spec: What the extractor is.
        data: The mean's file.
        round_num: After which it was made.

    Returns:
        Why nothing can; empty where something can.

    Raises:
        ShardError: It is another network's or round's, or holds values that no training gives.
    """
    mean, own = read_extractor(data, spec, "", round_num), engine.parameters()
    engine.replace(mean)
    features, logits = engine.predict(to_float_nchw(part.data.validation.images[:_TRIED_SAMPLES]))
    largest = max(float(np.abs(values).max(initial=0.0)) for values in (features, logits))
    # NaN is neither below nor above.
    if largest <= MOST_WEIGHT:
        return ""
    engine.replace({name: own[name] for name, _ in spec.shapes})
    return (
        f"with the mean of round {round_num}, features and logits of its own images reach {largest:.3g}; "
        "whoever runs the server should look at who takes part"
    )


def _metadata(client_id: str, round_num: int) -> dict[str, str | int]:
    return {"kind": "extractor", "client_id": client_id, "round_num": round_num}
