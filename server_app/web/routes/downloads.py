"""Send artifacts, soft labels and the trained model."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from flask import Blueprint, Response, abort, send_file

from gkt_core.bundle.manifest import DEVICE_FILES, ORT_FORMAT_FILES
from gkt_core.errors import RoundError
from gkt_core.seal import has_seal
from gkt_core.wire.paths import ARTIFACT, EXTRACTOR, MODEL, RUN, SOFT_LABELS
from gkt_core.wire.protocol import SHA256_HEADER
from server_app.rounds.state import Phase
from server_app.run_folder import (
    SERVER_WEIGHTS_BLOB,
    TEMPLATE_BLOB,
    RunContext,
    filled_template,
    mean_extractor_blob,
    soft_labels_blob,
)
from server_app.store import has_its_hash, sealed_blob
from server_app.web.context import context, run_of
from server_app.web.operations import BINARY

_DAMAGED_MODEL = "the trained model is damaged"
_AT_IT = "it is made again from its checkpoint, ask again later"
_REMEDY = (
    "what it could be made from is damaged or gone as well, or no trainer runs here: put one of them back "
    "and start gkt serve again"
)

blueprint = Blueprint("downloads", __name__, url_prefix=RUN)


def _send(run: RunContext, path: Path, kind: str, round_num: int) -> Response:
    status = path.stat()
    sha256 = _sha256(path, status.st_size, status.st_mtime_ns)
    # A device whose link broke asks for the rest, with Range and If-Range.
    response = send_file(path.absolute(), mimetype=BINARY, conditional=True, etag=sha256)
    # What something between cuts or changes must not become weights or soft labels.
    response.headers[SHA256_HEADER] = sha256
    run.store.count_traffic(f"download/{kind}", round_num, response.content_length or 0)
    return response


@functools.lru_cache(maxsize=256)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    """Hash a file once for all devices, until another one has its name."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@blueprint.get(ARTIFACT)
def artifact(run_id: str, name: str) -> Response:
    """A file of the bundle that devices need."""
    run = run_of(run_id)
    # A phone's reduced ONNX Runtime loads .ort files, which a bundle has if it was exported with them.
    names = DEVICE_FILES + tuple(other for other in ORT_FORMAT_FILES if other in run.bundle.manifest.files)
    if name not in names:
        abort(404, f"no artifact {name[:40]!r}, expected one of {', '.join(names)}")
    return _send(run, run.bundle.file(name), "bundle", 0)


@blueprint.get(SOFT_LABELS)
def soft_labels(run_id: str, round_num: int, client_id: str) -> Response:
    """The server's logits for the samples that this device sent in this round."""
    run = run_of(run_id)
    state = run.store.state()
    if client_id not in state.clients:
        raise RoundError(f"{client_id} has not joined this run")
    try:
        path = run.blobs.local_path(soft_labels_blob(round_num, client_id))
    except FileNotFoundError:
        abort(404, f"no soft labels of round {round_num} for {client_id}: the run is in {state.round_num}")
    # Soft labels are traffic of the round that trains with them.
    return _send(run, path, "soft_labels", state.round_num)


@blueprint.get(EXTRACTOR)
def extractor(run_id: str, round_num: int) -> Response:
    """The mean of the devices' extractors after a round, which they begin the next one from."""
    run = run_of(run_id)
    blob = mean_extractor_blob(round_num)
    if not has_its_hash(run.blobs, blob):
        abort(404, f"no mean of extractors after round {round_num}: that of the last round is kept")
    return _send(run, run.blobs.local_path(blob), "extractor", run.store.state().round_num)


@blueprint.get(MODEL)
def model(run_id: str, part: str) -> Response:
    """The trained model: template (ONNX without extractor) or server (safetensors)."""
    run = run_of(run_id)
    blob = {"template": TEMPLATE_BLOB, "server": SERVER_WEIGHTS_BLOB}.get(part)
    if blob is None:
        abort(404, f"no model part {part[:20]!r}, expected template or server")
    if run.store.state().phase is not Phase.FINISHED:
        raise RoundError("the run is not finished: there is no trained model yet")
    # What is damaged is never sent, and the template is made again from the weights.
    weights = sealed_blob(run.blobs, SERVER_WEIGHTS_BLOB)
    context().health.model_trouble = "" if weights is not None else _DAMAGED_MODEL
    if weights is None:
        abort(503, f"{_DAMAGED_MODEL}: {_AT_IT if context().make_model() else _REMEDY}")
    if blob == TEMPLATE_BLOB and has_seal(weights):
        filled = filled_template(run.bundle, weights)
        try:
            is_damaged = run.blobs.local_path(blob).read_bytes() != filled
        except FileNotFoundError:
            is_damaged = True
        if is_damaged:
            run.blobs.put(blob, filled)
    return _send(run, run.blobs.local_path(blob), "model", 0)
