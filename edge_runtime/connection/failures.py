"""Say what a connection that failed has met, with the remedy."""

from __future__ import annotations

import httpx

from edge_runtime.connection.proxies import proxy_hint


def failure_words(error: httpx.TransportError) -> str:
    """Describe a failed connection in a line: what happened, and what to do where that is known."""
    words = f"{type(error).__name__}: {error}"
    if isinstance(error, httpx.ProxyError):
        return f"{words}: {proxy_hint(str(error))}"
    if "CERTIFICATE_VERIFY_FAILED" in words:
        return f"{words}: give the certificate of who signed it with --ca-file"
    return words
