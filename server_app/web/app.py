"""The application factory: one Flask application for one run, one blueprint per concern."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from gkt_core.errors import (
    AuthenticationError,
    DamagedStorageError,
    ForbiddenError,
    GKTError,
    InputError,
    NoRoomError,
    ProtocolError,
    RoundError,
    StorageUnavailableError,
)
from gkt_core.wire.message_json import PROTOCOL_HEADER, SPOKEN, minor_of
from gkt_core.wire.protocol import ErrorBody, to_json
from server_app.logs.requests import watch_requests
from server_app.members.copies import Copies
from server_app.overview.sight import Sight
from server_app.page.feed import Feed
from server_app.quota import NO_ROOM, Limits, Quota
from server_app.run_folder import RunContext
from server_app.status import round_page
from server_app.storage_errors import STORAGE_ERRORS, describe_storage_error
from server_app.turns import TurnWatch
from server_app.web.access import Gate, caller_named
from server_app.web.admission import Admission
from server_app.web.classifier import FeatureClassifier
from server_app.web.context import RequestContext
from server_app.web.health import HealthWatch
from server_app.web.peers.queueing import KNOWS
from server_app.web.receiving import close_unread
from server_app.web.routes import (
    clients,
    documents,
    downloads,
    inference,
    joining,
    operators,
    page,
    runs,
    uploads,
    watching,
)

# Zstandard may make incompressible bytes a little longer; messages are small beside a shard.
_BODY_SLACK = 64 * 1024
# Of an error, that of the nearest of its classes holds.
_STATUSES: dict[type, int] = {
    AuthenticationError: 401,
    ForbiddenError: 403,
    GKTError: 500,
    InputError: 422,
    ProtocolError: 400,
    RoundError: 409,
    StorageUnavailableError: 503,
}
# Of the web server's 64 threads some are always free for what only asks.
_UPLOADS_OF_A_DEVICE, _UPLOADS = 4, 48
_SLOW_MESSAGES_OF_A_DEVICE, _SLOW_MESSAGES = 2, 8
# Of a storage that does not answer; devices wait longer by themselves when it goes on.
_RETRY_AFTER_SECONDS = 2


def create_app(
    run: RunContext,
    shared_token: str | None = None,
    *,
    operator_secret: str = "",
    authority: bytes = b"",
    poll_seconds: float = 1.0,
    classifier: FeatureClassifier | None = None,
    trainer_trouble: Callable[[], str] = lambda: "",
    make_model: Callable[[], bool] = lambda: False,
    limits: Limits | None = None,
    shows_locally: bool = False,
) -> Flask:
    """Make the application.

    Args:
        run: The run to serve.
        shared_token: A token that speaks for every device that has no secret of its own; None for none, as it
            should be.
        operator_secret: What operators show; empty where there are none.
        authority: Certificate (PEM) of the authority that the server made for itself, if it did.
        poll_seconds: How often waiting devices are told to ask again.
        classifier: What answers features; None for a server that does not.
        trainer_trouble: Says what is wrong with the trainer; an empty string where nothing is.
        make_model: Lets the model of a finished run be made again, and says whether a trainer is at it.
        limits: What devices may store.
        shows_locally: Whether who asks on this machine itself sees the run without a secret; never where a
            proxy is in front, which makes everybody look so.
    """
    health = HealthWatch(run.store, trainer_trouble, lambda: NO_ROOM if quota.trouble() else "")
    folders, size = (run.folder, run.folder / "blobs"), run.config.shard_samples
    quota = Quota(folders, size, limits or Limits(), run.config.num_clients)
    sight = Sight(
        run, trainer_trouble, lambda: "; ".join(health.storage_troubles()), (limits or Limits()).reserve_bytes
    )
    app = Flask("gkt", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = run.shard_spec.max_bytes + _BODY_SLACK
    app.extensions["gkt"] = RequestContext(
        run,
        poll_seconds,
        health,
        Admission(_UPLOADS_OF_A_DEVICE, _UPLOADS),
        Admission(_SLOW_MESSAGES_OF_A_DEVICE, _SLOW_MESSAGES),
        quota,
        TurnWatch(run.store),
        sight,
        Feed(sight.shared.latest, partial(round_page, run.store)),
        classifier,
        authority,
        make_model,
    )
    copies = Copies(sight.ledger.note_copy)
    gate = Gate(run.store, shared_token or "", operator_secret, copies, shows_locally=shows_locally)
    # First, so that it hears of what the gate refuses.
    watch_requests(app, caller_named, sight.hear)
    app.before_request(gate.admit)
    app.extensions[KNOWS] = gate.knows
    app.after_request(gate.ask_rotation)

    @app.errorhandler(GKTError)
    def _refuse(error: GKTError) -> Response:
        status = next(_STATUSES[kind] for kind in type(error).__mro__ if kind in _STATUSES)
        return _error_response(status, error.code, str(error))

    def _storage(error: Exception) -> Response:
        """Disk full, database locked, blob store gone: for a person to mend, and for devices to wait."""
        # One line: every device asks again and again, and the log may lie on the disk that is full.
        what = describe_storage_error(error)
        app.logger.error(
            "%s %s: the storage does not answer: %s: %s", request.method, request.path, what, error
        )
        return _refuse(StorageUnavailableError(f"{what}: ask again later"))

    for kind in STORAGE_ERRORS:
        app.register_error_handler(kind, _storage)
    # Those say in their own words what is wrong, and were logged where it was seen first.
    app.register_error_handler(NoRoomError, _refuse)

    @app.errorhandler(DamagedStorageError)
    def _damaged(error: DamagedStorageError) -> Response:
        health.is_damaged = True
        return _refuse(error)

    @app.errorhandler(HTTPException)
    def _http_error(error: HTTPException) -> Response:
        message = error.description or ""
        if isinstance(error, RequestEntityTooLarge):
            message = f"the body exceeds {request.max_content_length} bytes, the most that is expected here"
        return _error_response(error.code or 500, type(error).__name__, message)

    @app.before_request
    def _spoken() -> None:
        """Refuse who speaks none of our versions, whatever it wants, with the command that helps."""
        g.minor = minor_of(request.headers.get(PROTOCOL_HEADER))

    @app.after_request
    def _speaks(response: Response) -> Response:
        response.headers[PROTOCOL_HEADER] = SPOKEN
        return response

    @app.after_request
    def _never_cached(response: Response) -> Response:
        """What a proxy keeps of a task would be an old answer to a new question."""
        if not response.cache_control.immutable:
            response.headers["Cache-Control"] = "no-store"
        close_unread()
        return response

    routed = (runs, clients, uploads, downloads, inference, operators, watching, page, documents, joining)
    for module in routed:
        app.register_blueprint(module.blueprint)
    return app


def _error_response(status: int, code: str, message: str) -> Response:
    response = Response(to_json(ErrorBody(code, message)), status, mimetype="application/json")
    if status == 503:
        response.headers["Retry-After"] = str(_RETRY_AFTER_SECONDS)
    return response
