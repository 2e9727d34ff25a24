"""Show the run in a browser: a page that says nothing of it, and a document for who may see it."""

from __future__ import annotations

from collections.abc import Mapping

from flask import Blueprint, Response, abort, request

from gkt_core.wire.paths import PAGE, PAGE_ICON, PAGE_SCRIPT, PAGE_STYLE, PAGE_VIEW
from server_app.page.files import ICON_TYPE, SCRIPT_TYPE, STYLE_TYPE, page_files
from server_app.web.context import context
from server_app.web.routes.for_browsers import kept_for_ever, secured

blueprint = Blueprint("page", __name__)


# Two slashes are the page as well, as three are: Werkzeug would lead the one to a name that the request says.
@blueprint.get(PAGE, strict_slashes=False)
def index() -> Response:
    """The page of the run, which asks for what it shows; it loads nothing from anywhere else."""
    return secured(Response(page_files().html, mimetype="text/html"))


@blueprint.get(PAGE_SCRIPT)
def script(script: str) -> Response:
    """A script of the page."""
    return _kept(page_files().scripts, script, SCRIPT_TYPE)


@blueprint.get(PAGE_STYLE)
def style(style: str) -> Response:
    """A style sheet of the page."""
    return _kept(page_files().styles, style, STYLE_TYPE)


@blueprint.get(PAGE_ICON)
def icon(icon: str) -> Response:
    """An icon of the page."""
    return _kept(page_files().icons, icon, ICON_TYPE)


@blueprint.get(PAGE_VIEW)
def view() -> Response:
    """The run as the page shows it; with If-None-Match, nothing where nothing has changed."""
    looked = context().feed.latest()
    response = Response(looked.body, mimetype="application/json")
    response.set_etag(looked.etag)
    response.make_conditional(request)
    return secured(response)


def _kept(files: Mapping[str, bytes], name: str, mimetype: str) -> Response:
    """A file that never changes under this name."""
    if name not in files:
        abort(404, f"no file {name[:60]!r} of this version: load the page again")
    return secured(kept_for_ever(Response(files[name], mimetype=mimetype)))
