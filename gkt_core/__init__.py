"""The ground floor: what edge and server must agree on, and what a notebook simulates with.

Names are imported when they are used: a device has this package without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gkt_core.config.run_config import RunConfig
from gkt_core.errors import GKTError
from gkt_core.lazy_names import lazy_names as _lazy_names
from gkt_core.version import __version__

if TYPE_CHECKING:
    from gkt_core.algorithm_names import register_algorithm
    from gkt_core.algorithms.base import Algorithm, RoundResult
    from gkt_core.algorithms.simulate import Simulation, simulate
    from gkt_core.algorithms.simulation.federation import Federation, load_federation
    from gkt_core.algorithms.simulation.from_arrays import federation_from_arrays
    from gkt_core.data.from_arrays import private_data
    from gkt_core.data.private_data import PrivateData, load_private_data
    from gkt_core.networks import register_edge_network, register_server_network

__all__ = [
    "Algorithm",
    "Federation",
    "GKTError",
    "PrivateData",
    "RoundResult",
    "RunConfig",
    "Simulation",
    "__version__",
    "federation_from_arrays",
    "load_federation",
    "load_private_data",
    "private_data",
    "register_algorithm",
    "register_edge_network",
    "register_server_network",
    "simulate",
]

_WHERE = {
    "Algorithm": "gkt_core.algorithms.base",
    "Federation": "gkt_core.algorithms.simulation.federation",
    "PrivateData": "gkt_core.data.private_data",
    "RoundResult": "gkt_core.algorithms.base",
    "Simulation": "gkt_core.algorithms.simulate",
    "federation_from_arrays": "gkt_core.algorithms.simulation.from_arrays",
    "load_federation": "gkt_core.algorithms.simulation.federation",
    "load_private_data": "gkt_core.data.private_data",
    "private_data": "gkt_core.data.from_arrays",
    "register_algorithm": "gkt_core.algorithm_names",
    "register_edge_network": "gkt_core.networks",
    "register_server_network": "gkt_core.networks",
    "simulate": "gkt_core.algorithms.simulate",
}

__getattr__ = _lazy_names(__name__, _WHERE)
