"""Give request handlers the run that their application serves, and the answers that several of them give."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from flask import Response, abort, current_app, g

from gkt_core.wire.protocol import Task, to_json
from server_app.overview.sight import Sight
from server_app.page.feed import Feed
from server_app.quota import Quota
from server_app.rounds.machine import rounds_of
from server_app.rounds.state import AnswerLost, RunState
from server_app.run_folder import RunContext, soft_labels_blob
from server_app.store import has_its_hash
from server_app.turns import TurnWatch
from server_app.web.admission import Admission
from server_app.web.classifier import FeatureClassifier
from server_app.web.health import HealthWatch


@dataclass(frozen=True, slots=True)
class RequestContext:
    """The run, how often waiting devices ask again, who knows how all is, who may upload and what.

    ``slow_messages`` are those that did not come at once; ``sight`` is what whoever runs the server sees,
    ``feed`` what the page shows of it; ``authority`` is the certificate (PEM) of the server's own authority,
    if it has one; ``make_model`` lets the trained model be made again, and says whether a trainer is at it.
    """

    run: RunContext
    poll_seconds: float
    health: HealthWatch
    admission: Admission
    slow_messages: Admission
    quota: Quota
    turns: TurnWatch
    sight: Sight
    feed: Feed
    classifier: FeatureClassifier | None = None
    authority: bytes = b""
    make_model: Callable[[], bool] = lambda: False

    def renew(self) -> None:
        """Let whoever watches the run see at once what a person has changed."""
        self.sight.shared.renew()
        self.feed.renew()


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
    if _has_lost_answer(run, task, client_id):
        state = run.store.apply(AnswerLost(client_id))
        task = rounds_of(state).task_for(state, client_id, context().poll_seconds)
    if task.action == "train":
        task = dataclasses.replace(task, learning_rate_scale=run.edge_learning_rate_scale(state))
    held, answered = state.last_upload(client_id), dict(state.views).get(client_id, 0)
    return message_response(dataclasses.replace(task, upload_round=held, view_round=answered))


def _has_lost_answer(run: RunContext, task: Task, client_id: str) -> bool:
    """Whether the soft labels of a task are damaged: without a teacher a device can go on."""
    if task.action != "train" or not task.soft_labels_round or not run.config.edge_distils:
        return False
    return not has_its_hash(run.blobs, soft_labels_blob(task.soft_labels_round, client_id))


def message_response(message: Any) -> Response:
    """A protocol message as JSON, of fields that who asks knows."""
    return Response(to_json(message, g.minor), mimetype="application/json")
