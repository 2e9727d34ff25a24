"""The ground floor: what edge and server must agree on."""

from gkt_core.config.run_config import RunConfig
from gkt_core.errors import GKTError

__version__ = "0.2.0.dev0"

__all__ = ["GKTError", "RunConfig", "__version__"]
