"""Let devices join and ask what to do."""

from __future__ import annotations

import logging

from flask import Blueprint, Response

from gkt_core.bundle.run_checks import check_classes
from gkt_core.errors import MessageError
from gkt_core.wire.paths import CLIENT, RUN, TASK
from gkt_core.wire.protocol import JoinRequest, check_client_id, check_protocol_version
from server_app.store import ClientRecord
from server_app.store.joining import Identity
from server_app.web.context import run_of, task_response
from server_app.web.receiving import receive_message
from server_app.web.validation import received

_logger = logging.getLogger(__name__)
_LONGEST_KEY = 128

blueprint = Blueprint("clients", __name__, url_prefix=RUN)


@blueprint.put(CLIENT)
def join(run_id: str, client_id: str) -> Response:
    """A device introduces itself; repeating it is harmless."""
    run = run_of(run_id)
    check_client_id(client_id)
    message = received(JoinRequest, receive_message())
    check_protocol_version(message.protocol_version)
    manifest, names = run.bundle.manifest, message.class_names
    check_classes(manifest, message.num_classes, f"the data of {client_id}", names)
    if not names:
        _logger.warning(
            "%s does not say what its classes are: whether class 0 is %s there too, nobody can tell",
            client_id,
            manifest.class_names[0] if manifest.class_names else "the others' class 0",
        )
    for name in ("client_key", "samples_sha256"):
        if (length := len(getattr(message, name))) > _LONGEST_KEY:
            raise MessageError(f"{name} has {length} characters, expected {_LONGEST_KEY} at most")
    if message.num_examples < 2 or message.num_validation_examples < 1:
        raise MessageError(
            f"{client_id} has {message.num_examples} training and {message.num_validation_examples} "
            "validation samples, expected at least 2 and 1"
        )
    if not message.engine.isprintable():
        raise MessageError(f"the engine of {client_id} is {message.engine[:40]!r}, expected a printable name")
    state = run.store.join(
        ClientRecord(client_id, message.num_examples, message.num_validation_examples, message.engine[:40]),
        Identity.of(client_id, message.client_key, names, message.samples_sha256),
    )
    return task_response(run, state, client_id)


@blueprint.get(TASK)
def task(run_id: str, client_id: str) -> Response:
    """What the device does next."""
    run = run_of(run_id)
    return task_response(run, run.store.state(), client_id)
