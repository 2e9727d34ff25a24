"""Describe the interface: an OpenAPI document, and a page of it for people.

Neither needs the token: both say the same of every server of this version, and nothing of its run.
"""

from __future__ import annotations

from flask import Blueprint, Response, current_app

from gkt_core.wire.paths import DOCS, OPENAPI
from server_app.web.openapi import openapi_json, openapi_page

blueprint = Blueprint("documents", __name__)


@blueprint.get(OPENAPI)
def openapi() -> Response:
    """The OpenAPI 3.1 document."""
    return Response(openapi_json(current_app), mimetype="application/json")


@blueprint.get(DOCS)
def page() -> Response:
    """The OpenAPI document as a page; it loads nothing from anywhere."""
    return Response(openapi_page(current_app), mimetype="text/html")
