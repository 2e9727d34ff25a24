"""Show the run to whoever runs its server, and to the tools that people have."""

from __future__ import annotations

from flask import Blueprint, Response, abort

from gkt_core.wire.paths import HEALTHZ, METRICS, OVERVIEW, READYZ, RUN, RUN_ACTION
from server_app.operating import RUN_ACTIONS, change_run
from server_app.overview.exposition import MEDIA_TYPE
from server_app.overview.messages import RunChange
from server_app.web.context import context, message_response, run_of
from server_app.web.receiving import receive_message
from server_app.web.routes import runs
from server_app.web.validation import received

blueprint = Blueprint("watching", __name__)


@blueprint.get(HEALTHZ)
def healthz() -> Response:
    """Whether the server answers, under the name that Kubernetes and others ask by."""
    return runs.live()


@blueprint.get(READYZ)
def readyz() -> Response:
    """Whether the run can go on; 503 with the reasons where it cannot."""
    return runs.health()


@blueprint.get(METRICS)
def metrics() -> Response:
    """The numbers of the run, for Prometheus."""
    return Response(context().sight.exposition.text(), content_type=MEDIA_TYPE)


@blueprint.get(RUN + OVERVIEW)
def overview(run_id: str) -> Response:
    """Everything at a glance: phase, devices, trainer, disk, what is wrong and what to do."""
    run_of(run_id)
    return message_response(context().sight.shared.latest())


@blueprint.post(RUN + RUN_ACTION)
def change_of_run(run_id: str, change: str) -> Response:
    """Pause a run (devices wait), stop it (devices end) or resume it."""
    run = run_of(run_id)
    if change not in RUN_ACTIONS:
        abort(404, f"no action {change[:20]!r}, expected one of {', '.join(RUN_ACTIONS)}")
    body = receive_message()
    wanted = received(RunChange, body) if body else RunChange()
    changed = change_run(run, change, wanted.reason)
    context().renew()
    return message_response(changed)
