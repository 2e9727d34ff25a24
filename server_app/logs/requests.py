"""Write who asked for what: a line a request, with bytes, time, why it was refused; no secret, no body."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flask import Flask, Response, g, request

from gkt_core.errors import MessageError
from gkt_core.wire.credentials import read_bearer
from gkt_core.wire.protocol import ErrorBody, from_json
from server_app.logs.formats import event
from server_app.logs.setup import REQUESTS

log = logging.getLogger(REQUESTS)
# Of refusals, those that belong to the way of a run: a round that is closed, soft labels that are not there
# yet, a body that broke off, a storage that is waited for.
_USUAL = frozenset({404, 408, 409, 503})
_LONGEST_REASON = 300


@dataclass(frozen=True, slots=True)
class Asked:
    """One request that was answered.

    Attributes:
        who: ``device``, ``enroll``, ``operator``, ``shared``, or ``nobody`` who is known.
        client_id: The device that asked; empty where it was none.
        claimed: The name that a secret was shown for that does not hold; empty for none.
        address: Where it came from: of a proxy, if there is one in front.
        operation: As of :data:`server_app.web.operations.OPERATIONS`.
        status: Of the answer.
        upload_bytes: The body that came, as it was announced.
        download_bytes: The body of the answer.
        seconds: Until the answer was ready.
        refused: Why; empty where it was not.
    """

    who: str
    client_id: str
    claimed: str
    address: str
    operation: str
    status: int
    upload_bytes: int
    download_bytes: int
    seconds: float
    refused: str

    @property
    def is_fault(self) -> bool:
        """Whether the refusal is nothing that happens on the way of a run."""
        return self.status >= 400 and self.status not in _USUAL

    def line(self) -> str:
        """For a person."""
        who = self.client_id or (f"{self.who} (as {self.claimed})" if self.claimed else self.who)
        what = f"{who} from {self.address}: {self.operation} {self.status}"
        refused = f": {self.refused}" if self.refused else ""
        return (
            f"{what}, {self.upload_bytes} B in, {self.download_bytes} B out, {1000 * self.seconds:.0f} ms"
            f"{refused}"
        )

    def fields(self) -> dict[str, Any]:
        """For programs."""
        said = {
            "who": self.who,
            "client_id": self.client_id,
            "claimed": self.claimed,
            "address": self.address,
            "operation": self.operation,
            "status": self.status,
            "upload_bytes": self.upload_bytes,
            "download_bytes": self.download_bytes,
            "seconds": round(self.seconds, 6),
            "refused": self.refused,
        }
        return {name: value for name, value in said.items() if value != ""}


def watch_requests(
    app: Flask, who: Callable[[], tuple[str, str]], told: Callable[[Asked], None] = lambda asked: None
) -> None:
    """Log every request of an application; to be called before anything else is registered that may refuse.

    Args:
        app: The application.
        who: Who sent the current request: kind and device, both empty for nobody who is known.
        told: Hears of each as well.
    """

    @app.before_request
    def _begin() -> None:
        g.began_at = time.perf_counter()

    @app.after_request
    def _end(response: Response) -> Response:
        asked = _asked(response, *who())
        told(asked)
        level = logging.WARNING if asked.is_fault else logging.INFO
        if log.isEnabledFor(level):
            log.log(level, "%s", asked.line(), extra=event("request", **asked.fields()))
        return response


def _asked(response: Response, kind: str, client_id: str) -> Asked:
    refused, claimed = "", ""
    if response.status_code >= 400:
        try:
            refused = from_json(ErrorBody, response.get_data()).message[:_LONGEST_REASON]
        except MessageError:
            refused = response.status
        if not kind:
            shown = read_bearer(request.headers.get("Authorization", "").removeprefix("Bearer "))
            claimed = shown.name if shown is not None else ""
    return Asked(
        kind or "nobody",
        client_id,
        claimed,
        request.remote_addr or "",
        request.endpoint or "nothing",
        response.status_code,
        request.content_length or 0,
        response.content_length or 0,
        time.perf_counter() - g.get("began_at", time.perf_counter()),
        refused,
    )
