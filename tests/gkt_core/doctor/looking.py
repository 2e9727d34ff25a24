"""What a check says, for tests of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gkt_core.doctor.findings import FINE, Check, Finding
from gkt_core.doctor.options import DoctorOptions


def looked(check: Check, **options: Any) -> list[Finding]:
    """All that a check says of these options."""
    return list(check(DoctorOptions(**options)))


def states(findings: Iterable[Finding]) -> list[str]:
    """The states of findings."""
    return [finding.state for finding in findings]


def the_one(findings: Iterable[Finding], state: str) -> Finding:
    """The only finding that is not fine, which is of this state and says what to do."""
    (finding,) = [each for each in findings if each.state != FINE]
    assert finding.state == state and finding.remedy, finding
    return finding
