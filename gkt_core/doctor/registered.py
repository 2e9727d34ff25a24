"""The checks that need nothing but gkt itself, by name, in the order of the table."""

from __future__ import annotations

from gkt_core.doctor import bundles, installed, machine
from gkt_core.doctor.findings import Check

CHECKS: dict[str, Check] = {
    "python": installed.python_version,
    "packages": installed.packages,
    "threads": machine.threads,
    "clock": machine.clock,
    "bundle": bundles.bundle,
    "memory": bundles.memory,
}
