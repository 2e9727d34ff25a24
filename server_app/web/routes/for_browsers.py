"""What a browser is told about every file of ours: who may use it, and how long it may keep it."""

from __future__ import annotations

from collections.abc import Mapping

from flask import Response

_YEAR_SECONDS = 365 * 86_400
# Nothing from anywhere else, nothing inline, in nobody's frame, and no form that leads anywhere.
_SOURCES = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self'",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
_HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def secured(response: Response, sources: Mapping[str, str] | None = None) -> Response:
    """Let a page load only what is ours.

    Args:
        response: What is answered.
        sources: Directives of its Content-Security-Policy that are other than usual, or more.
    """
    policy = _SOURCES | dict(sources or {})
    response.headers["Content-Security-Policy"] = "; ".join(
        f"{name} {value}" for name, value in policy.items()
    )
    response.headers.update(_HEADERS)
    return response


def kept_for_ever(response: Response) -> Response:
    """Let a file be kept that never changes under its name."""
    response.cache_control.public = response.cache_control.immutable = True
    response.cache_control.max_age = _YEAR_SECONDS
    return response
