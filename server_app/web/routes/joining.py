"""Serve the page with which a phone joins, and its files: static, the same of every server of this version.

None needs the token, as none says anything of the run: the page reads a link's secret from what stands behind
``#`` in its own address, which no browser sends.

====  ==============  =============================================
verb  path            answer
====  ==============  =============================================
GET   /join           the page
GET   /join/{file}    scripts, style, WebAssembly, licences
====  ==============  =============================================
"""

from __future__ import annotations

import functools
import gzip
import mimetypes
import threading
from importlib import resources

from flask import Blueprint, Response, abort, request

from gkt_core.wire.paths import JOIN_FILE, JOIN_PAGE
from server_app.web.peers.answering import shared_pieces
from server_app.web.routes.for_browsers import kept_for_ever, secured

blueprint = Blueprint("joining", __name__)

_PAGE = "index.html"
# Those have no hash of their content in their names, and are asked for again.
_UNHASHED = (_PAGE, "service-worker.js", "licences.txt", "onnxruntime-third-party.txt")
_unpacking = threading.Lock()
_TYPES = {
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
}
# WebAssembly, photos that were chosen, a worker, a manifest.
_SOURCES = {
    "script-src": "'self' 'wasm-unsafe-eval'",
    "img-src": "'self' blob:",
    "worker-src": "'self'",
    "manifest-src": "'self'",
}
_HEADERS = {
    # With its Cross-Origin-Opener-Policy this isolates the page: only then may its threads share memory.
    "Cross-Origin-Embedder-Policy": "require-corp",
    # The page may take photos, and keep the screen on; of all else of a phone it needs nothing.
    "Permissions-Policy": "geolocation=(), microphone=()",
}


@blueprint.get(JOIN_PAGE)
def page() -> Response:
    """The page with which a phone joins."""
    return _answer(_PAGE)


@blueprint.get(JOIN_FILE)
def file(file: str) -> Response:
    """One of the files of the page at /join."""
    return _answer(file)


def _answer(name: str) -> Response:
    packed = _files().get(name)
    if packed is None:
        abort(404, f"the page at {JOIN_PAGE} has no file {name[:64]!r}")
    takes_gzip = request.accept_encodings["gzip"] > 0
    suffix = name[name.rfind(".") :]
    data = packed if takes_gzip else _unpacked(name)
    response = Response(
        shared_pieces(data),
        mimetype=_TYPES.get(suffix) or mimetypes.guess_type(name)[0],
    )
    response.content_length = len(data)
    if takes_gzip:
        response.headers["Content-Encoding"] = "gzip"
    response.headers["Vary"] = "Accept-Encoding"
    if name not in _UNHASHED:
        kept_for_ever(response)
    secured_page(response)
    if name == "service-worker.js":
        # It is for the page, one step above it, wherever that is: a proxy may put a path before it.
        response.headers["Service-Worker-Allowed"] = "../join"
    return response


def secured_page(response: Response) -> Response:
    """Let the page do what it needs, and nothing else."""
    secured(response, _SOURCES).headers.update(_HEADERS)
    return response


def _unpacked(name: str) -> bytes:
    """A file as it is, unpacked once for all who do not take it packed."""
    with _unpacking:
        return _once_unpacked(name)


@functools.cache
def _once_unpacked(name: str) -> bytes:
    return gzip.decompress(_files()[name])


@functools.cache
def _files() -> dict[str, bytes]:
    """Each file by name, compressed with gzip: few megabytes, read once."""
    files = {}
    for each in (resources.files("server_app.web") / "static" / "join").iterdir():
        data = each.read_bytes()
        is_packed = each.name.endswith(".gz")
        files[each.name.removesuffix(".gz")] = data if is_packed else gzip.compress(data, mtime=0)
    return files
