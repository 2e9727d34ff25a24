"""Where a round stands that is not over, and when that is worth saving.

A place says how far a round has come: counts and sums as JSON-compatible values, and the few arrays that no
network or optimizer holds. With those, it is all that going on needs: batches and views are functions of
the place, and features are extracted again from the networks that they came from.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Place:
    """How far a round has come; as it stands, nowhere.

    Attributes:
        values: JSON-compatible, by name.
        arrays: What the values cannot hold.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)


class Saves:
    """Saves a place after every epoch, and between two of them every so many minutes.

    Args:
        save: Writes the place, and the networks and optimizers as they are.
        minutes: Between two saves within an epoch; 0 for one after every step.
    """

    def __init__(self, save: Callable[[Place], None], minutes: float) -> None:
        self._save, self._seconds = save, 60 * minutes
        self._saved = time.monotonic()

    def __call__(self, place: Callable[[], Place], *, epoch_done: bool = False) -> None:
        """Save, if it is time to, what ``place`` then gives."""
        if epoch_done or time.monotonic() - self._saved >= self._seconds:
            self._save(place())
            self._saved = time.monotonic()


# Of an algorithm that nobody runs from a folder.
NO_SAVES = Saves(lambda place: None, float("inf"))
