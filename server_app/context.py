"""What a request handler finds in its application."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from flask import Response, abort, current_app

from gkt_core.protocol import to_json
from server_app.run_folder import RunContext


@dataclass(frozen=True, slots=True)
class RequestContext:
    """The run, and how often waiting devices ask again."""

    run: RunContext
    poll_seconds: float


def context() -> RequestContext:
    """The context of the current application."""
    return cast(RequestContext, current_app.extensions["gkt"])


def run_of(run_id: str) -> RunContext:
    """The run of this id; 404 if the server has no such run."""
    run = context().run
    if run.store.run_id != run_id:
        abort(404, f"no run {run_id[:40]!r} on this server")
    return run


def message_response(message: Any) -> Response:
    """A protocol message as JSON."""
    return Response(to_json(message), mimetype="application/json")
