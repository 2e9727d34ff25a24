"""The device's engines, as an exporter finds them: what is verified is what trains."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gkt_core.errors import MissingExtraError
from gkt_core.rounds.engine import TrainingEngine


class InspectableEngine(TrainingEngine, Protocol):
    """A device's engine whose weights and gradients can be looked at."""

    def parameters(self) -> dict[str, NDArray[np.float32]]:
        """Copies of all parameters and running statistics."""
        ...

    def gradients(self) -> dict[str, NDArray[np.float32]]:
        """Copies of the gradients of the last step."""
        ...


def engine_opener() -> Callable[..., InspectableEngine]:
    """The device's own way to open an engine on a bundle.

    Found by entry point, since this package and the device's do not import each other.

    Raises:
        MissingExtraError: None is registered.
    """
    for entry in entry_points(group="gkt.engines", name="open"):
        opened: Callable[..., InspectableEngine] = entry.load()
        return opened
    raise MissingExtraError(
        "no engine is registered: install gkt-edge again, with pip install 'gkt-edge[export]'"
    )
