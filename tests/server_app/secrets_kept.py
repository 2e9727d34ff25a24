"""Where the secrets of a run may lie, and a search for them everywhere else."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from edge_runtime.state.credential import kept_credential
from gkt_core.wire.join_link import read_join_link

# Files that hold a secret because that is what they are for; each readable by its owner alone.
_HOLD_SECRETS = frozenset({"operator_secret", "join", "credential.json", "authority.key", "server.key"})


def secrets_of(run_folder: Path, state_dirs: Iterable[Path]) -> dict[str, str]:
    """The operator's, the link's, and each device's own."""
    secrets = {
        "operator": (run_folder / "operator_secret").read_text().strip(),
        "link": read_join_link((run_folder / "join").read_text()).secret,
    }
    for state_dir in state_dirs:
        kept = kept_credential(state_dir)
        assert kept is not None, state_dir
        secrets[state_dir.name] = kept.secret
    assert all(len(secret) > 30 for secret in secrets.values())
    return secrets


def shown_in(secrets: dict[str, str], *places: Path) -> list[str]:
    """Files below these places, or these files, in which a secret stands that should not."""
    files = [path for place in places for path in ([place] if place.is_file() else place.rglob("*"))]
    found = []
    for path in files:
        if path.is_file() and path.name not in _HOLD_SECRETS:
            held = path.read_bytes()
            found += [f"{name} in {path}" for name, secret in secrets.items() if secret.encode() in held]
    return found
