"""The device's engines, as an exporter finds them: what is verified is what trains."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points

from gkt_core.errors import MissingExtraError
from gkt_core.rounds.engine import DeviceEngine


def engine_opener() -> Callable[..., DeviceEngine]:
    """The device's own way to open an engine on a bundle.

    Found by entry point, since this package and the device's do not import each other.

    Raises:
        MissingExtraError: None is registered.
    """
    for entry in entry_points(group="gkt.engines", name="open"):
        opened: Callable[..., DeviceEngine] = entry.load()
        return opened
    raise MissingExtraError(
        "no engine is registered: install gkt-edge again, with pip install 'gkt-edge[export]'"
    )
