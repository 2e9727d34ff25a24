"""Compare what devices send with what can be: pure functions, and a watch that remembers the past."""

from server_app.quarantine.evidence import Evidence, gather_evidence
from server_app.quarantine.judge import judge
from server_app.quarantine.watch import Watch

__all__ = ["Evidence", "Watch", "gather_evidence", "judge"]
