"""The checks of a device, by name, in the order of the table."""

from __future__ import annotations

from edge_runtime.doctor import device, server
from gkt_core.doctor.findings import Check

CHECKS: dict[str, Check] = {
    "engine": device.engine,
    "state": device.state_folder,
    "server": server.server,
    "run": server.run,
}
