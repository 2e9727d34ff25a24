"""Become a device of a run with its join link, once, and stay one by a secret of one's own."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from edge_runtime.connection.authority import checked_authority, pinned, unverified
from edge_runtime.server_client import ServerClient
from edge_runtime.state.credential import KeptCredential, keep_credential, kept_credential
from edge_runtime.state.identity import Identity
from gkt_core.errors import ArtifactError, AuthenticationError, ConfigError
from gkt_core.wire.credentials import NewCredential, new_secret, secret_sha256
from gkt_core.wire.join_link import JoinLink
from gkt_core.wire.protocol import RunInfo

Note = Callable[[str], None]


class Wire(Protocol):
    """Opens the wire to a server: what the way there needs is known, who asks and whom to trust is said."""

    def __call__(
        self, url: str, token: str | None, *, trust: ssl.SSLContext | None = None, bundle_sha256: str = ""
    ) -> ServerClient:
        """Open it; arguments are those of :class:`edge_runtime.server_client.ServerClient`."""
        ...


def as_guest(link: JoinLink, wire: Wire) -> ServerClient:
    """Look at a run without becoming a device of it: nothing of the link is used up.

    Raises:
        AuthenticationError: The server is not the link's.
        GKTError: It cannot be asked.
    """
    trust = pinned(_authority(link, wire)) if link.ca_sha256 else None
    return wire(link.url, link.bearer.text(), trust=trust, bundle_sha256=link.bundle_sha256)


def _fits(info: RunInfo) -> None:
    """Look at nothing."""


def as_member(
    folder: Path,
    identity: Identity,
    wire: Wire,
    note: Note,
    *,
    link: JoinLink | None,
    url: str | None = None,
    check: Callable[[RunInfo], object] = _fits,
) -> ServerClient:
    """Speak for the device of a state folder, which a link makes a member of the run if it is none.

    Args:
        folder: The state folder.
        identity: Of the device.
        wire: Opens the wire.
        note: Told what happens, without secrets.
        link: Of the run; not needed once the device has enrolled.
        url: Where the server is by now, if it has moved.
        check: Called with the run before a use of the link is spent on it; what it raises spends none.

    Raises:
        AuthenticationError: The server is not the link's, or does not take the link or the device's secret.
        ArtifactError: The folder belongs to another run.
        ConfigError: The device has not enrolled, and there is no link.
        RoundError: The name is another device's.
    """
    kept = kept_credential(folder)
    if link is not None and not _holds_already(kept, link, identity, wire):
        kept = _begun(link, wire)
    if kept is None or not (kept.is_enrolled or link is not None):
        raise ConfigError(
            "this device does not belong to a run yet: give --join LINK (or a file that holds it, or "
            "GKT_JOIN), "
            "which gkt serve prints and gkt enroll makes"
        )
    moved = url or (link.url if link is not None else kept.url)
    if kept.url != moved:
        kept = dataclasses.replace(kept, url=moved)
        keep_credential(folder, kept)
    server = _opened(kept, identity.client_id, wire)
    try:
        if link is not None and not kept.is_enrolled:
            kept = _enrolled(folder, kept, identity, link, server, check)
            note(
                f"{identity.client_id} is enrolled: from here on its state folder is enough, the link is not"
            )
        elif kept.next_secret:
            _finish_rotation(folder, kept, identity.client_id, server)
    except BaseException:
        server.close()
        raise

    def rotate() -> None:
        _rotate(folder, identity.client_id, server)
        note(f"{identity.client_id} has drawn another secret, as the server's operator asked for")

    server.on_rotate = rotate
    return server


def _authority(link: JoinLink, wire: Wire) -> str:
    with contextlib.closing(wire(link.url, None, trust=unverified())) as server:
        return checked_authority(link.url, server.authority(), link.ca_sha256)


def _opened(kept: KeptCredential, client_id: str, wire: Wire) -> ServerClient:
    trust = pinned(kept.authority) if kept.authority else None
    return wire(kept.url, kept.bearer(client_id), trust=trust, bundle_sha256=kept.bundle_sha256)


def _holds_already(kept: KeptCredential | None, link: JoinLink, identity: Identity, wire: Wire) -> bool:
    """Say whether a link has nothing to give to a device that enrolled before, with this or another one."""
    if kept is None:
        return False
    if kept.enrolment == link.enrolment:
        return True
    if not kept.is_enrolled or (kept.bundle_sha256, kept.ca_sha256) != (link.bundle_sha256, link.ca_sha256):
        # Another server's: it is not shown a secret that is not meant for it.
        return False
    moved = dataclasses.replace(kept, url=link.url)
    try:
        with contextlib.closing(_opened(moved, identity.client_id, wire)) as server:
            server.run_info()
    except AuthenticationError:
        return bool(kept.next_secret)
    return True


def _begun(link: JoinLink, wire: Wire) -> KeptCredential:
    authority = _authority(link, wire) if link.ca_sha256 else ""
    return KeptCredential(
        link.url, link.enrolment, new_secret(), link.bundle_sha256, link.ca_sha256, authority
    )


def _enrolled(
    folder: Path,
    kept: KeptCredential,
    identity: Identity,
    link: JoinLink,
    server: ServerClient,
    check: Callable[[RunInfo], object],
) -> KeptCredential:
    server.show(link.bearer.text())
    info = server.run_info()
    _check_run(folder, info.run_id)
    check(info)
    # Before the server hears of the secret: an answer that is lost is asked for again.
    keep_credential(folder, kept)
    server.enrol(identity.client_id, NewCredential(secret_sha256(kept.secret), identity.client_key))
    kept = dataclasses.replace(kept, is_enrolled=True)
    keep_credential(folder, kept)
    server.show(kept.bearer(identity.client_id))
    return kept


def _check_run(folder: Path, run_id: str) -> None:
    """Refuse a folder of another run before a use of the link is spent on it."""
    try:
        begun = json.loads((folder / "state.json").read_text(encoding="utf-8")).get("run_id", run_id)
    except (OSError, ValueError, AttributeError):
        # There is none, or who reads it next says what is wrong.
        return
    if begun != run_id:
        raise ArtifactError(f"{folder} belongs to {begun}, the link to {run_id}: choose another --state-dir")


def _rotate(folder: Path, client_id: str, server: ServerClient) -> None:
    kept = kept_credential(folder)
    if kept is None:
        return
    kept = dataclasses.replace(kept, next_secret=kept.next_secret or new_secret())
    keep_credential(folder, kept)
    _finish_rotation(folder, kept, client_id, server)


def _finish_rotation(folder: Path, kept: KeptCredential, client_id: str, server: ServerClient) -> None:
    """Replace the secret, also where the server has done it already and the answer was lost."""
    after = dataclasses.replace(kept, secret=kept.next_secret, next_secret="")

    def replace() -> None:
        server.find_run()
        server.enrol(client_id, NewCredential(secret_sha256(after.secret)))

    try:
        replace()
    except AuthenticationError:
        server.show(after.bearer(client_id))
        replace()
    server.show(after.bearer(client_id))
    keep_credential(folder, after)
