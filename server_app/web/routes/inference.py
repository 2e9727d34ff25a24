"""Classify features of a few images that a device sends, while it waits."""

from __future__ import annotations

from flask import Blueprint, Response, abort

from gkt_core.wire.online_features import max_inference_bytes, read_features
from gkt_core.wire.paths import INFER
from gkt_core.wire.protocol import Inference
from server_app.web.classifier import probabilities
from server_app.web.context import context, message_response
from server_app.web.receiving import receive_bytes

blueprint = Blueprint("inference", __name__)


@blueprint.post(INFER)
def infer() -> Response:
    """Classify features with the server's half of a deployed model (gkt serve --infer)."""
    classifier = context().classifier
    if classifier is None:
        abort(404, "this server answers no features: start it with gkt serve --infer FOLDER")
    body = receive_bytes(max_inference_bytes(classifier.feature_shape))
    logits = classifier.logits(read_features(body, classifier.feature_shape))
    return message_response(
        Inference(
            labels=logits.argmax(axis=1).tolist(),
            logits=logits.astype(float).tolist(),
            probabilities=probabilities(logits).tolist(),
        )
    )
