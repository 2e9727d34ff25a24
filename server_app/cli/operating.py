"""A run as its operator reaches it: in its folder, or with the operator's secret behind its server's URL."""

from __future__ import annotations

import contextlib
import http.client
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from gkt_core.errors import (
    AuthenticationError,
    ConfigError,
    GKTError,
    InputError,
    MessageError,
    ProtocolError,
    ServerUnavailableError,
    needs,
)
from gkt_core.printable import printable
from gkt_core.wire.addresses import is_readable_on_the_way
from gkt_core.wire.credentials import (
    OPERATOR,
    Bearer,
    ClientChange,
    ClientList,
    EnrolmentRequest,
    Enrolments,
    read_bearer,
)
from gkt_core.wire.message_json import PROTOCOL_HEADER, SPOKEN
from gkt_core.wire.paths import CLIENT_ACTION, CLIENTS, ENROLMENTS, OVERVIEW, RUN, RUN_ACTION, RUNS, fill
from gkt_core.wire.protocol import ErrorBody, RunList, from_json, to_json
from server_app.cli.enroll import make_links
from server_app.cli.options import OperatorOptions, ReenrolOptions, check_url
from server_app.overview.messages import Overview, RunChange, RunChanged

if TYPE_CHECKING:
    from gkt_core.wire.join_link import JoinLink
    from server_app.run_folder import RunContext

MessageT = TypeVar("MessageT")
_TIMEOUT_SECONDS = 60.0
_MOST_ANSWER_BYTES = 64 << 20


class OperatedRun(Protocol):
    """What an operator does with a run, wherever it is."""

    def clients(self) -> ClientList:
        """List its devices."""

    def change(self, client_id: str, action: str) -> None:
        """Revoke, release, trust or rotate a device."""

    def link_for(self, client_id: str, options: ReenrolOptions) -> JoinLink:
        """Make the link of a device that enrols again."""

    def overview(self) -> Overview:
        """See all of it at a glance."""

    def change_run(self, action: str, reason: str) -> RunChanged:
        """Pause, stop or resume it."""

    def forget(self, client_id: str) -> ClientChange:
        """Erase all that a device ever sent.

        Raises:
            InputError: There is no such device, or it is being trained on.
        """


@contextlib.contextmanager
def operated(options: OperatorOptions) -> Iterator[OperatedRun]:
    """Give the run of the options.

    Raises:
        GKTError: There is none, or its server lets nobody in with this secret.
    """
    if options.data_dir is None:
        assert options.server is not None and options.operator_secret is not None
        yield RemoteRun(options.server, options.operator_secret, options.ca_file)
        return
    with needs("server"):
        from server_app.run_folder import open_run  # noqa: PLC0415 - imports an extra
        from server_app.storage_errors import storage_named  # noqa: PLC0415 - imports an extra
    with storage_named():
        run = open_run(options.data_dir)
        with contextlib.closing(run.store):
            yield _LocalRun(run)


class _LocalRun:
    """A run in a folder; works beside its server or without one."""

    def __init__(self, run: RunContext) -> None:
        self._run = run

    def clients(self) -> ClientList:
        """List its devices."""
        from server_app.members.membership import client_list  # noqa: PLC0415 - imports an extra

        return client_list(self._run.store)

    def change(self, client_id: str, action: str) -> None:
        """Revoke, release, trust or rotate a device."""
        from server_app.members.membership import change_client  # noqa: PLC0415 - imports an extra

        change_client(self._run, client_id, action)

    def link_for(self, client_id: str, options: ReenrolOptions) -> JoinLink:
        """Make the link of a device that enrols again."""
        return make_links(self._run, options, 1, client_id)[0]

    def overview(self) -> Overview:
        """See all of it at a glance, as far as its folder tells."""
        from server_app.overview.document import overview, witness_of  # noqa: PLC0415 - imports an extra

        return overview(self._run, witness_of(self._run.folder))

    def change_run(self, action: str, reason: str) -> RunChanged:
        """Pause, stop or resume it."""
        from server_app.operating import change_run  # noqa: PLC0415 - imports an extra

        return change_run(self._run, action, reason)

    def forget(self, client_id: str) -> ClientChange:
        """Erase all that a device ever sent."""
        from server_app.operating import forget_client  # noqa: PLC0415 - imports an extra

        return forget_client(self._run, client_id)


class RemoteRun:
    """The run of a server.

    Args:
        url: The server's.
        secret_file: Holds the operator's secret.
        ca_file: Whom to trust there (PEM); None for the usual authorities.

    Raises:
        GKTError: A file cannot be used, or the server lets nobody in with this secret.
    """

    def __init__(self, url: str, secret_file: Path, ca_file: Path | None = None) -> None:
        check_url("--server", url)
        if is_readable_on_the_way(url):
            raise ConfigError(
                f"--server is {url}: plain http to another machine would show the operator's secret to "
                "whoever is between: use https, or a tunnel to the server's machine (ssh -L)"
            )
        self._url, self._bearer = url.rstrip("/"), _read_secret(secret_file)
        handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
        if url.lower().startswith("https:"):
            handlers.append(urllib.request.HTTPSHandler(context=_context(ca_file)))
        else:
            # On this machine no proxy is between.
            handlers.append(urllib.request.ProxyHandler({}))
        self._opener = urllib.request.build_opener(*handlers)
        runs = self._ask(RunList, "GET", RUNS).run_ids
        if len(runs) != 1:
            raise ProtocolError(f"{url} serves {len(runs)} runs, expected one")
        self._root = fill(RUN, run_id=runs[0])

    def clients(self) -> ClientList:
        """List its devices."""
        return self._ask(ClientList, "GET", self._root + CLIENTS)

    def change(self, client_id: str, action: str) -> None:
        """Revoke, release, trust or rotate a device."""
        path = fill(CLIENT_ACTION, client_id=urllib.parse.quote(client_id, safe=""), action=action)
        self._ask(ClientChange, "POST", self._root + path, b"")

    def link_for(self, client_id: str, options: ReenrolOptions) -> JoinLink:
        """Make the link of a device that enrols again."""
        with needs("server"):
            from server_app.members.membership import join_links  # noqa: PLC0415 - imports an extra
        wanted = EnrolmentRequest(1, options.hours * 3600, client_id)
        made = self._ask(Enrolments, "POST", self._root + ENROLMENTS, to_json(wanted))
        return join_links(options.public_url or self._url, made)[0]

    def overview(self) -> Overview:
        """See all of it at a glance."""
        return self._ask(Overview, "GET", self._root + OVERVIEW)

    def change_run(self, action: str, reason: str) -> RunChanged:
        """Pause, stop or resume it."""
        path = self._root + fill(RUN_ACTION, change=action)
        return self._ask(RunChanged, "POST", path, to_json(RunChange(reason)))

    def forget(self, client_id: str) -> ClientChange:
        """Erase all that a device ever sent."""
        path = fill(CLIENT_ACTION, client_id=urllib.parse.quote(client_id, safe=""), action="forget")
        return self._ask(ClientChange, "POST", self._root + path, b"")

    def _ask(self, kind: type[MessageT], verb: str, path: str, body: bytes | None = None) -> MessageT:
        headers = {"Authorization": f"Bearer {self._bearer.text()}", "Content-Type": "application/json"}
        headers[PROTOCOL_HEADER] = SPOKEN
        request = urllib.request.Request(self._url + path, body, headers, method=verb)
        try:
            with self._opener.open(request, timeout=_TIMEOUT_SECONDS) as answer:
                return from_json(kind, answer.read(_MOST_ANSWER_BYTES))
        except urllib.error.HTTPError as error:
            with error:
                raise _refusal(self._url, error.code, error.read(_MOST_ANSWER_BYTES)) from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            hint = ""
            if isinstance(reason, ssl.SSLCertVerificationError):
                hint = ": give --ca-file, a copy of authority.pem of the run's folder"
            raise ServerUnavailableError(
                f"{self._url} does not answer: {printable(str(reason))[:300]}{hint}"
            ) from error


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Whoever points elsewhere would be sent the operator's secret there."""

    def redirect_request(self, *_: Any) -> None:
        """Follow nobody."""


def _read_secret(path: Path) -> Bearer:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeError) as error:
        raise InputError(f"cannot read the operator's secret in {path}: {error}") from error
    bearer = Bearer(OPERATOR, "", text)
    if read_bearer(bearer.text()) is None:
        raise InputError(f"{path} holds no operator's secret: copy operator_secret of the run's folder")
    return bearer


def _context(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"--ca-file {ca_file} cannot be used: {error}: expected certificates (PEM)"
        ) from error


def _refusal(url: str, status: int, body: bytes) -> GKTError:
    """What a server's refusal is here: who asks for something that cannot be has an input error."""
    try:
        said = printable(from_json(ErrorBody, body).message)[:500]
    except MessageError:
        return ProtocolError(f"{url} answered {status}, and not as a server of gkt does: is it one?")
    if status in (401, 403):
        return AuthenticationError(said)
    if status >= 500:
        return ServerUnavailableError(said)
    return InputError(said) if status in (404, 409, 422) else ProtocolError(said)
