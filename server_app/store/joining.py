"""Who may join beside those that have joined: one device a name, and the same classes for all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from gkt_core.bundle.run_checks import check_class_names
from gkt_core.errors import RoundError


@dataclass(frozen=True, slots=True)
class Identity:
    """What a device said of itself when it joined.

    Attributes:
        client_id: Its name.
        key_sha256: Of its secret; empty where it has none.
        class_names: Of its data, in their order; empty where it did not say.
        samples_sha256: Of the ids of its samples; empty where it did not say.
    """

    client_id: str
    key_sha256: str = ""
    class_names: tuple[str, ...] = ()
    samples_sha256: str = ""

    @classmethod
    def of(
        cls, client_id: str, client_key: str, class_names: Iterable[str], samples_sha256: str = ""
    ) -> Identity:
        """Keep the hash of the secret, and not the secret."""
        hashed = hashlib.sha256(client_key.encode()).hexdigest() if client_key else ""
        return cls(client_id, hashed, tuple(class_names), samples_sha256)

    def has_other_samples(self, before: Identity) -> bool:
        """Say whether what the server holds of this device's open part was made of other samples."""
        return before.client_id == self.client_id and before.samples_sha256 != self.samples_sha256


def same_samples(first: str, second: str) -> str:
    """Say of two devices that they have said the very same samples."""
    return f"{first} and {second} say the same samples: one file, or two whose sample ids count alike"


def check_joining(joining: Identity, known: Iterable[Identity]) -> None:
    """Refuse a name that another device has, and classes that differ from another device's.

    Args:
        joining: Who asks.
        known: Who has joined, the same device perhaps among them.

    Raises:
        RoundError: The name belongs to a device with another secret.
        ArtifactError: Names both devices and both lists.
    """
    for other in known:
        if other.client_id == joining.client_id:
            check_key(other, joining.key_sha256)
        elif joining.class_names and other.class_names:
            check_class_names(joining.class_names, joining.client_id, other.class_names, other.client_id)


def check_key(known: Identity, key_sha256: str) -> None:
    """Refuse a name that a device with another key has.

    Args:
        known: Who has it.
        key_sha256: Of the key of who asks for it.

    Raises:
        RoundError: The keys differ.
    """
    if known.key_sha256 and known.key_sha256 != key_sha256:
        raise RoundError(
            f"the name {known.client_id} belongs to another device of this run: give another "
            "--client-id, or the --state-dir that this device began with"
        )
