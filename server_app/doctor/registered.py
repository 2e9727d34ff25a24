"""The checks of a server, by name, in the order of the table."""

from __future__ import annotations

from gkt_core.doctor.findings import Check
from server_app.doctor import address, storage

CHECKS: dict[str, Check] = {
    "port": address.port,
    "certificate": address.certificate,
    "database": storage.database,
    "secrets": storage.secrets,
    "disk": storage.disk,
    "trainer": storage.trainer,
}
