"""Secrets of the wire: how one is drawn, shown to the other side, and kept there as a hash.

Who asks says so in ``Authorization: Bearer KIND~NAME~SECRET``: a device with its name, whoever wants to
become one with the number of an enrolment, an operator without a name. A secret is 32 random bytes, so that
its SHA-256 gives nothing away, and nobody who reads a server's database can speak for a device.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field

from gkt_core.wire.protocol import Message

# In answers to a device whose operator wants it to draw another secret.
ROTATE_HEADER = "X-GKT-Rotate"
# In requests of a device: which process of it asks, 16 hexadecimal digits that it draws when it starts.
PROCESS_HEADER = "X-GKT-Process"
DEVICE, ENROLMENT, OPERATOR = "device", "enroll", "operator"
_SECRET_BYTES = 32
_NAMED = re.compile(rf"({DEVICE}|{ENROLMENT}|{OPERATOR})~([A-Za-z0-9_.-]{{0,64}})~([A-Za-z0-9_-]{{20,128}})")
_SHA256 = re.compile("[0-9a-f]{64}")


def new_process() -> str:
    """Draw the number by which a process of a device is told from another one; it says nothing else."""
    return secrets.token_hex(8)


@dataclass(frozen=True, slots=True)
class Bearer:
    """Who somebody says to be, and the secret that shows it.

    Attributes:
        kind: ``device``, ``enroll`` or ``operator``.
        name: The device's, or the enrolment's number; empty for an operator.
        secret: Never shown.
    """

    kind: str
    name: str
    secret: str = field(repr=False)

    def text(self) -> str:
        """As it follows ``Bearer`` in the header."""
        return f"{self.kind}~{self.name}~{self.secret}"


def read_bearer(text: str) -> Bearer | None:
    """Read what follows ``Bearer``; None where it is nothing of these kinds."""
    match = _NAMED.fullmatch(text)
    return None if match is None else Bearer(match[1], match[2], match[3])


def new_secret() -> str:
    """Draw one: 32 random bytes, as text that fits into a header, a URL and a file."""
    return secrets.token_urlsafe(_SECRET_BYTES)


def secret_sha256(secret: str) -> str:
    """What is kept of a secret by who must recognise it."""
    return hashlib.sha256(secret.encode()).hexdigest()


def is_secret(secret: str, sha256: str) -> bool:
    """Say whether a secret is the one of this hash, in a time that tells nothing of how far they agree."""
    return hmac.compare_digest(secret_sha256(secret), sha256)


def is_sha256(text: str) -> bool:
    """Say whether this could be a SHA-256, in small letters."""
    return _SHA256.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class NewCredential(Message):
    """A device says by which secret it will be known: with a join link, or to replace the secret it has.

    Attributes:
        secret_sha256: Of the secret, which the device draws and keeps; repeating it is harmless.
        client_key: As in :class:`gkt_core.wire.protocol.JoinRequest`: shows that the name is its own in a run
            that had no credentials before.
    """

    secret_sha256: str
    client_key: str = ""


@dataclass(frozen=True, slots=True)
class Enrolled(Message):
    """The device is known by its new secret from here on, and by no other."""

    client_id: str


@dataclass(frozen=True, slots=True)
class EnrolmentRequest(Message):
    """An operator wants tokens for join links.

    Attributes:
        devices: How many tokens, each for one device.
        seconds: How long they hold.
        client_id: Enrol this device again, whose state folder is lost; empty for new devices.
    """

    devices: int
    seconds: float
    client_id: str = ""


@dataclass(frozen=True, slots=True)
class Enrolments(Message):
    """What makes join links, together with the server's address.

    Attributes:
        tokens: Each ``NUMBER.TOKEN``.
        bundle_sha256: Of the manifest of the run's bundle.
        ca_sha256: Of the server's own authority; empty where it has none.
    """

    tokens: list[str]
    bundle_sha256: str
    ca_sha256: str


@dataclass(frozen=True, slots=True)
class ClientChange(Message):
    """An operator has changed what a device may do; ``state`` is what it is now.

    ``notes`` are lines for a person: of a device that is forgotten, what was erased and what still holds
    something of it.
    """

    client_id: str
    state: str
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ClientRow(Message):
    """A device as operators see it.

    Attributes:
        client_id: Its name.
        state: ``enrolled`` (has not joined yet), ``training`` (its part of the round is awaited),
            ``reported``, ``waiting``, ``quarantined`` or ``revoked``.
        reason: Why it is quarantined; empty where it is not.
        trusted: Whether its uploads are not checked any more.
        num_examples: Training samples; 0 before it has joined.
        engine: What it trains with.
        last_answer: The last round with soft labels for it.
    """

    client_id: str
    state: str
    reason: str
    trusted: bool
    num_examples: int
    engine: str
    last_answer: int


@dataclass(frozen=True, slots=True)
class ClientList(Message):
    """All devices that have enrolled or joined, and where their run is."""

    run_id: str
    phase: str
    round_num: int
    rounds: int
    clients: list[ClientRow]
