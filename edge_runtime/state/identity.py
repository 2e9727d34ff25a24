"""Under which name a device takes part, and the secret that shows that it is the same device."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from pathlib import Path

from gkt_core.errors import ArtifactError
from gkt_core.files import write_atomically
from gkt_core.wire.protocol import check_client_id

_FILE = "device.json"
_LONGEST_STEM = 50


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a device is.

    Attributes:
        client_id: Its name.
        client_key: Drawn once; a server refuses another device of the same name, which has another one.
    """

    client_id: str
    client_key: str


def identity_of(folder: Path, wanted: str | None, stem: str) -> Identity:
    """Read who the device of a state folder is, or draw it.

    Args:
        folder: The state folder.
        wanted: The name that was asked for; by default the folder's, or one that is drawn: two owners' files
            may well have one name.
        stem: What a drawn name begins with.

    Raises:
        ArtifactError: The folder's file cannot be read, or the folder has begun a run under another name.
        MessageError: The name cannot be one.
    """
    path = folder / _FILE
    try:
        kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        client_id, client_key = kept.get("client_id", ""), kept.get("client_key", "")
        state = folder / "state.json"
        begun = json.loads(state.read_text(encoding="utf-8")).get("client_id", "") if state.exists() else ""
        # Of a version that took the name from the data file there is no other.
        client_id = client_id or begun
        if not all(isinstance(each, str) for each in (client_id, client_key, begun)):
            raise ValueError("client_id and client_key are expected to be text")
    except (OSError, ValueError, AttributeError) as error:
        raise ArtifactError(f"{folder} cannot be read: {error}: choose another --state-dir") from error
    if wanted and begun and wanted != begun:
        # Noted all the same, the name would be asked for at the next start as well.
        raise ArtifactError(
            f"{folder} belongs to the device {begun}, not to {wanted}: leave out --client-id, or choose "
            "another --state-dir"
        )
    drawn = f"{stem[:_LONGEST_STEM]}-{secrets.token_hex(3)}"
    identity = Identity(check_client_id(wanted or client_id or drawn), client_key or secrets.token_hex(16))
    if (identity.client_id, identity.client_key) != (client_id, client_key):
        values = {"client_id": identity.client_id, "client_key": identity.client_key}
        write_atomically(path, json.dumps(values).encode(), mode=0o600)
    return identity
