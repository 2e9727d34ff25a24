"""Give request handlers the run that their application serves, and the answers that several of them give."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, cast

from flask import Response, abort, current_app

from gkt_core.wire.protocol import to_json
from server_app.rounds.machine import rounds_of
from server_app.rounds.state import RunState
from server_app.run_folder import RunContext
from server_app.web.classifier import FeatureClassifier


@dataclass(frozen=True, slots=True)
class RequestContext:
    """The run, how often waiting devices ask again, and what answers features, if anything does."""

    run: RunContext
    poll_seconds: float
    classifier: FeatureClassifier | None = None


def context() -> RequestContext:
    """The context of the current application."""
    return cast(RequestContext, current_app.extensions["gkt"])


def run_of(run_id: str) -> RunContext:
    """The run of this id; 404 if the server has no such run."""
    run = context().run
    if run.store.run_id != run_id:
        abort(404, f"no run {run_id[:40]!r} on this server")
    return run


def task_response(run: RunContext, state: RunState, client_id: str) -> Response:
    """What a device does next, with the learning rate of the round and which of its uploads are known."""
    task = rounds_of(state).task_for(state, client_id, context().poll_seconds)
    if task.action == "train":
        task = dataclasses.replace(task, learning_rate_scale=run.learning_rate_scale(state))
    held, answered = state.last_upload(client_id), dict(state.views).get(client_id, 0)
    return message_response(dataclasses.replace(task, upload_round=held, view_round=answered))


def message_response(message: Any) -> Response:
    """A protocol message as JSON."""
    return Response(to_json(message), mimetype="application/json")
