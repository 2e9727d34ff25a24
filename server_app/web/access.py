"""Say who asks, and refuse what is not theirs: every request is bound to the device whose secret it shows."""

from __future__ import annotations

import contextlib
import dataclasses
import hmac
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from flask import Response, g, request

from gkt_core.errors import AuthenticationError, ForbiddenError
from gkt_core.wire.credentials import (
    DEVICE,
    ENROLMENT,
    OPERATOR,
    PROCESS_HEADER,
    ROTATE_HEADER,
    Bearer,
    read_bearer,
)
from server_app.members.copies import Copies
from server_app.page.local import is_asked_here
from server_app.storage_errors import STORAGE_ERRORS
from server_app.store import RunStore
from server_app.store.credentials import Credential
from server_app.web.admission import Transfers
from server_app.web.operations import INVITED, MEMBER, NEWCOMER, OPERATIONS, OPERATORS, OWN_DEVICE, WATCHERS

# Of a version in which all devices of a run shared one token.
SHARED = "shared"
# Who shows no secret, and sits at this machine.
LOCAL = "local"
_WHO = {
    DEVICE: "a device's secret",
    ENROLMENT: "a join link",
    OPERATOR: "an operator's secret",
    SHARED: "the shared token",
}
_MAY = {
    INVITED: (DEVICE, ENROLMENT, OPERATOR, SHARED),
    OWN_DEVICE: (DEVICE, SHARED),
    MEMBER: (DEVICE, OPERATOR, SHARED),
    NEWCOMER: (DEVICE, ENROLMENT),
    OPERATORS: (OPERATOR,),
    WATCHERS: (OPERATOR,),
}
_UNKNOWN = (
    "the bearer token is missing or wrong: a device shows the secret that it got with a join link, an "
    "operator the one in the run's folder"
)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Attributes:
        kind: As of :class:`gkt_core.wire.credentials.Bearer`, or ``shared`` or ``local``.
        bearer: What was shown; empty for the shared token and for nothing.
        credential: By what the device is known; None for others, and for one that has none of its own.
    """

    kind: str
    bearer: Bearer
    credential: Credential | None = None

    @property
    def rotates(self) -> bool:
        """Whether this device is to draw another secret."""
        return self.kind == DEVICE and self.credential is not None and self.credential.rotates

    @property
    def client_id(self) -> str:
        """The device that asks; empty where it is none that is known by a secret of its own."""
        return self.bearer.name if self.kind == DEVICE else ""


def caller() -> Caller:
    """Who sent the current request."""
    asks: Caller = g.caller
    return asks


def caller_named() -> tuple[str, str]:
    """What kind of caller sent the current request, and which device it is; empty for nobody who is known."""
    asks: Caller | None = g.get("caller")
    if asks is None:
        return "", ""
    named = str((request.view_args or {}).get("client_id", "")) if asks.kind == SHARED else ""
    return asks.kind, asks.client_id or named


def still_admitted() -> None:
    """Look again whether the current request's secret holds, once its body has arrived: that may take long.

    Raises:
        AuthenticationError: It was revoked or replaced meanwhile.
    """
    gate: Gate = g.gate
    gate.admit()


@contextlib.contextmanager
def cut_when_revoked() -> Iterator[Callable[[], bool]]:
    """End the body of the current request, which the block receives, once its device's secret has ended.

    Yields:
        Says whether that has happened: then nothing more of it is to be read.

    Raises:
        AuthenticationError: It was revoked or replaced meanwhile.
    """
    gate, asks = g.get("gate"), g.get("caller")
    connection = request.environ.get("gunicorn.socket")
    if gate is None or asks is None or asks.kind != DEVICE or connection is None:
        yield lambda: False
        return
    with gate.transfers.watched(asks.bearer, connection) as transfer:
        try:
            yield lambda: transfer.is_cut
        except Exception:
            if transfer.is_cut:
                # Says why, instead of that the body was cut short.
                gate.admit()
            raise


class Gate:
    """Admits requests to the application of one run.

    Attributes:
        transfers: Bodies on their way.

    Args:
        store: Knows credentials and enrolments.
        shared_token: As of :func:`server_app.web.app.create_app`; empty for none.
        operator_secret: What operators show; empty where there are none.
        copies: Notices two processes that show one secret.
        shows_locally: As of :func:`server_app.web.app.create_app`.
    """

    def __init__(
        self,
        store: RunStore,
        shared_token: str,
        operator_secret: str,
        copies: Copies,
        *,
        shows_locally: bool = False,
    ) -> None:
        self._shows_locally, self._copies = shows_locally, copies
        self._credentials, self.transfers = store.credentials, Transfers(store.credentials)
        self._shared_token, self._operator_secret = shared_token.encode(), operator_secret.encode()

    def admit(self) -> None:
        """Let the current request through, or refuse it before its body is read.

        Raises:
            AuthenticationError: It shows no secret, or one that does not hold.
            ForbiddenError: The secret is somebody's who may not do this, or two processes show it by turns.
        """
        operation = OPERATIONS.get(request.endpoint or "")
        if request.endpoint is None or (operation is not None and not operation.needs_token):
            return
        shown = request.headers.get("Authorization", "")
        is_watched = operation is not None and operation.access == WATCHERS
        if is_watched and not shown and self._shows_locally and is_asked_here(request):
            g.caller, g.gate = Caller(LOCAL, Bearer(LOCAL, "", "")), self
            return
        scheme, _, given = shown.partition(" ")
        # Known from here on to the log, also where it is refused.
        asks = self._known(given if scheme == "Bearer" else "")
        g.caller, g.gate = asks, self
        # A route that the table forgets is an operator's.
        access = OPERATORS if operation is None else operation.access
        if asks.kind not in _MAY[access]:
            raise ForbiddenError(f"{_WHO[asks.kind]} may not do this: it takes {_wanted(access)}")
        if asks.client_id:
            self._copies.hear(asks.client_id, request.headers.get(PROCESS_HEADER, ""))
        if access in (OWN_DEVICE, NEWCOMER):
            asks = self._own(asks, str((request.view_args or {}).get("client_id", "")))
            g.caller = asks

    def knows(self, shown: str) -> bool:
        """Say whether what a request shows is a secret that holds; for who asks before there is a request."""
        scheme, _, given = shown.partition(" ")
        with contextlib.suppress(AuthenticationError, *STORAGE_ERRORS):
            self._known(given if scheme == "Bearer" else "")
            return True
        return False

    def ask_rotation(self, response: Response) -> Response:
        """Ask a device for another secret where its operator wants one."""
        asks: Caller | None = g.get("caller")
        if asks is not None and asks.rotates:
            response.headers[ROTATE_HEADER] = "1"
        return response

    def _known(self, given: str) -> Caller:
        bearer = read_bearer(given)
        if bearer is None:
            if not self._shared_token or not hmac.compare_digest(given.encode(), self._shared_token):
                raise AuthenticationError(_UNKNOWN)
            return Caller(SHARED, Bearer(SHARED, "", ""))
        if bearer.kind == ENROLMENT:
            self._credentials.check_enrolment(bearer)
            return Caller(ENROLMENT, bearer)
        if bearer.kind == OPERATOR:
            if not self._operator_secret or not hmac.compare_digest(
                bearer.secret.encode(), self._operator_secret
            ):
                raise AuthenticationError(_UNKNOWN)
            return Caller(OPERATOR, bearer)
        known = self._credentials.find(bearer.name)
        if known is not None and known.revoked:
            raise AuthenticationError(f"{bearer.name} was revoked: its secret, the bearer token, has ended")
        if known is None or not known.fits(bearer.secret):
            raise AuthenticationError(
                f"the bearer token of {bearer.name} is wrong, or was replaced: if its state folder was lost, "
                "gkt clients re-enroll makes a link for it"
            )
        return Caller(DEVICE, bearer, known)

    def _own(self, asks: Caller, client_id: str) -> Caller:
        if asks.kind == DEVICE and asks.client_id != client_id:
            raise ForbiddenError(
                f"the secret of {asks.client_id} speaks for no other device, nor for {client_id[:64]!r}"
            )
        if asks.kind == SHARED:
            known = self._credentials.find(client_id)
            # Of one that was revoked, the run's state says so.
            if known is not None and not known.revoked:
                raise ForbiddenError(f"{client_id} has a secret of its own: the shared token is no other")
            return dataclasses.replace(asks, credential=known)
        return asks


def _wanted(access: str) -> str:
    return " or ".join(_WHO[kind] for kind in _MAY[access] if kind != SHARED)
