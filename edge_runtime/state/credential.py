"""What a device keeps of the run that it belongs to: where the server is, whom it trusts, its own secret."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from gkt_core.errors import ArtifactError, InputError, MemoryLimitError, MessageError
from gkt_core.files import write_atomically
from gkt_core.wire.credentials import DEVICE, Bearer
from gkt_core.wire.protocol import from_dict

_FILE = "credential.json"


@dataclass(frozen=True, slots=True)
class KeptCredential:
    """By what a server knows this device.

    Attributes:
        url: Of the server.
        enrolment: Number of the link that it was, or is to be, enrolled with.
        secret: Its own; never shown.
        bundle_sha256: The pin of the run's bundle.
        ca_sha256: The pin of the server's authority; empty for none.
        authority: That authority's certificate (PEM).
        is_enrolled: Whether the server has said that it knows the secret.
        next_secret: What the secret is being replaced with, until the server has said that it was.
    """

    url: str
    enrolment: str
    secret: str = field(repr=False)
    bundle_sha256: str
    ca_sha256: str = ""
    authority: str = ""
    is_enrolled: bool = False
    next_secret: str = field(default="", repr=False)

    def bearer(self, client_id: str) -> str:
        """What the server is shown."""
        return Bearer(DEVICE, client_id, self.secret).text()


def kept_credential(folder: Path) -> KeptCredential | None:
    """Read it from a state folder; None where there is none.

    Raises:
        ArtifactError: It cannot be read.
    """
    path = folder / _FILE
    try:
        return from_dict(KeptCredential, json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, MessageError) as error:
        raise ArtifactError(
            f"{path} cannot be read: {type(error).__name__}: ask for a link with gkt clients re-enroll, "
            "and begin "
            "again with another --state-dir"
        ) from error


def keep_credential(folder: Path, credential: KeptCredential) -> None:
    """Write it, readable by its owner only."""
    write_atomically(folder / _FILE, json.dumps(asdict(credential)).encode(), mode=0o600)


@contextlib.contextmanager
def place_kept_named(folder: Path | None) -> Iterator[None]:
    """Say of what is refused here that an enrolled device keeps its place: it needs no new use of a link.

    Data that do not fit, an engine that is not here, settings that nobody agrees to, too little memory: a
    person mends it, and starts the device again.

    Args:
        folder: The state folder; None for a guest, who has no place.

    Raises:
        InputError: As it was raised within, with the remedy.
        MemoryLimitError: The same.
        MessageError: The same.
    """
    try:
        yield
    except (InputError, MemoryLimitError, MessageError) as error:
        kept = None if folder is None else kept_credential(folder)
        if kept is None or not kept.is_enrolled:
            raise
        raise type(error)(
            f"{error}. This device stays enrolled: once that is mended, starting it again with the same "
            f"--state-dir {folder} takes no new use of a link"
        ) from error
