"""The flat state vectors of the portable training step, and where each tensor lies in them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gkt_core.errors import ArtifactError

PARAMETERS, STATISTICS = "parameters", "statistics"
_DTYPES = ("float32", "int64")


@dataclass(frozen=True, slots=True)
class VectorSlot:
    """Where a tensor lies in a flat state vector of the portable step, in elements."""

    vector: str
    offset: int
    shape: list[int]


@dataclass(frozen=True, slots=True)
class PortableState:
    """The flat vectors that the portable training step takes and gives back.

    Attributes:
        vectors: Length of each vector, by name.
        dtypes: ``float32`` or ``int64`` of each vector.
        slots: Where each parameter and running statistic lies.
    """

    vectors: dict[str, int]
    dtypes: dict[str, str]
    slots: dict[str, VectorSlot]

    def check(self) -> None:
        """Refuse a layout that contradicts itself.

        Raises:
            ArtifactError: A vector has no known dtype, or a tensor lies outside its vector.
        """
        if set(self.vectors) != set(self.dtypes) or not set(self.dtypes.values()) <= set(_DTYPES):
            raise ArtifactError(
                f"state vectors {sorted(self.vectors)} have the dtypes {self.dtypes}, expected one of "
                f"{' or '.join(_DTYPES)} each: export the artifacts again"
            )
        for name, slot in self.slots.items():
            end = slot.offset + math.prod(slot.shape)
            if min(slot.offset, *slot.shape, 1) < 0 or end > self.vectors.get(slot.vector, -1):
                raise ArtifactError(
                    f"{name} is not inside its state vector {slot.vector}: export the artifacts again"
                )

    def put(
        self, vectors: Mapping[str, NDArray[np.generic]], tensors: Mapping[str, NDArray[np.float32]]
    ) -> None:
        """Write tensors into their places in the vectors.

        Raises:
            ArtifactError: There is no such tensor, or it has another shape.
        """
        for name, values in tensors.items():
            slot = self.slots.get(name)
            if slot is None or list(values.shape) != slot.shape:
                raise ArtifactError(
                    f"{name} {list(values.shape)} is no tensor of this network: do device and server use "
                    "the same artifacts?"
                )
            end = slot.offset + math.prod(slot.shape)
            vectors[slot.vector][slot.offset : end] = values.reshape(-1)

    def tensors(self, vectors: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.float32]]:
        """Copy all tensors, by their PyTorch names, out of the vectors that are given."""
        return {
            name: np.array(
                vectors[slot.vector][slot.offset : slot.offset + math.prod(slot.shape)], np.float32
            ).reshape(slot.shape)
            for name, slot in self.slots.items()
            if slot.vector in vectors
        }
