"""Change who belongs to a run, for the person who runs its server: invite, revoke, release, rotate."""

from __future__ import annotations

import hashlib
import ssl

from gkt_core.bundle.manifest import manifest_sha256
from gkt_core.errors import InputError, RoundError
from gkt_core.wire.credentials import ClientList, ClientRow, EnrolmentRequest, Enrolments
from gkt_core.wire.join_link import JoinLink
from server_app.rounds.machine import rounds_of
from server_app.rounds.state import Event, Pardoned, Revoked, RunState
from server_app.run_folder import RunContext
from server_app.store import RunStore, drop_blobs
from server_app.store.credentials import Credential

REVOKE, RELEASE, TRUST, ROTATE = "revoke", "release", "trust", "rotate"
MOST_DEVICES, LONGEST_SECONDS = 10_000, 366 * 86_400.0


def open_enrolments(run: RunContext, wanted: EnrolmentRequest, authority: bytes) -> Enrolments:
    """Draw tokens for new devices, or one for a device whose state folder is lost.

    What the device was known by ends at once: whoever has its folder cannot speak for it any more.

    Args:
        run: The run.
        wanted: How many, and for how long.
        authority: Certificate (PEM) of the server's own authority; empty where it has none.

    Raises:
        InputError: So many, or for so long, are not given out; or there is no such device, or it was revoked.
    """
    if not 1 <= wanted.devices <= MOST_DEVICES or not 1 <= wanted.seconds <= LONGEST_SECONDS:
        raise InputError(
            f"{wanted.devices} links that hold for {wanted.seconds:g} s were asked for, expected 1 to "
            f"{MOST_DEVICES} and 1 to {LONGEST_SECONDS:g} s"
        )
    credentials = run.store.credentials
    if wanted.client_id:
        if wanted.devices != 1:
            raise InputError(f"{wanted.client_id} is one device, and takes one link")
        state = check_known(run.store, wanted.client_id)
        known = credentials.find(wanted.client_id)
        if wanted.client_id in state.revoked or (known is not None and known.revoked):
            raise InputError(f"{wanted.client_id} was revoked, for good: it cannot enrol again")
        credentials.end(wanted.client_id, revoked=False)
    bearers = [
        credentials.open_enrolment(wanted.seconds, client_id=wanted.client_id) for _ in range(wanted.devices)
    ]
    tokens = [f"{bearer.name}.{bearer.secret}" for bearer in bearers]
    return Enrolments(tokens, bundle_sha256(run), authority_sha256(authority))


def join_links(url: str, enrolments: Enrolments) -> list[JoinLink]:
    """Make links of tokens and the address at which devices find the server."""
    pins = enrolments.bundle_sha256, enrolments.ca_sha256
    split = (token.partition(".") for token in enrolments.tokens)
    return [JoinLink(url, number, secret, *pins) for number, _, secret in split]


def bundle_sha256(run: RunContext) -> str:
    """The pin of a run's bundle, as it stands in join links."""
    return manifest_sha256(run.bundle.manifest.to_dict())


def authority_sha256(authority: bytes) -> str:
    """The pin of an authority's certificate (PEM); empty for none."""
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(authority.decode())).hexdigest() if authority else ""


def change_client(run: RunContext, client_id: str, action: str) -> str:
    """Change what a device may do, and say what it is now.

    Args:
        run: The run.
        client_id: The device.
        action: ``revoke``, ``release`` (from quarantine), ``trust`` (the same, and never check it again) or
            ``rotate`` (it draws another secret with its next request).

    Raises:
        InputError: There is no such device, or nothing to change.
    """
    store = run.store
    state = check_known(store, client_id)
    if action == ROTATE:
        store.credentials.ask_rotation(client_id)
    elif action == REVOKE:
        # The secret first: from here on nothing of the device is taken.
        store.credentials.end(client_id, revoked=True)
        if client_id in (*state.clients, *state.revoked):
            state = applied(store, Revoked(client_id))
        if client_id not in rounds_of(state).uploads(state):
            # What it had sent of an open round: nobody will train on it.
            drop_blobs(run.blobs, store.forget_device(client_id))
    else:
        state = applied(store, Pardoned(client_id, action == TRUST))
    return client_state(store, state, client_id)


def client_list(store: RunStore) -> ClientList:
    """List the devices of a run, by name, and what each of them does."""
    state = store.state()
    reasons, known, enrolled = dict(state.quarantined), store.clients(), store.credentials.devices()

    def row(client_id: str) -> ClientRow:
        client = known.get(client_id)
        return ClientRow(
            client_id,
            _state_of(state, client_id, enrolled.get(client_id)),
            reasons.get(client_id, ""),
            client_id in state.trusted,
            client.num_examples if client else 0,
            client.engine if client else "",
            state.last_answer(client_id),
        )

    rows = [row(client_id) for client_id in sorted({*known, *enrolled})]
    return ClientList(store.run_id, str(state.phase), state.round_num, state.rounds, rows)


def client_state(store: RunStore, state: RunState, client_id: str) -> str:
    """What a device is: revoked, enrolled but not joined, quarantined, training, reported or waiting."""
    return _state_of(state, client_id, store.credentials.find(client_id))


def _state_of(state: RunState, client_id: str, known: Credential | None) -> str:
    if client_id in state.revoked or (known is not None and known.revoked):
        return "revoked"
    if client_id not in state.clients:
        return "enrolled"
    if client_id in dict(state.quarantined):
        return "quarantined"
    if rounds_of(state).is_working(state, client_id):
        return "training"
    return "reported" if client_id in state.reported else "waiting"


def check_known(store: RunStore, client_id: str) -> RunState:
    """Give the state of a run that has this device.

    Raises:
        InputError: It has not; names those that it has.
    """
    known = sorted({*store.clients(), *store.credentials.devices()})
    if client_id not in known:
        listed = ", ".join(known) or "nobody has joined yet"
        raise InputError(f"no device {client_id!r} in this run, expected one of: {listed}")
    return store.state()


def applied(store: RunStore, event: Event) -> RunState:
    """Apply what a person asked for.

    Raises:
        InputError: It does not fit the run.
    """
    try:
        return store.apply(event)
    except RoundError as error:
        # Here it is not a peer that misunderstood something, but what a person asked for.
        raise InputError(str(error)) from error
