"""What an answer means for a call: it is done, it is refused, or it is tried again."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import httpx

from edge_runtime.connection.answers import OddAnswerError, refusal_of
from gkt_core import errors
from gkt_core.errors import GKTError
from gkt_core.wire.protocol import LONGEST_WAIT_SECONDS

AnswerT = TypeVar("AnswerT")

# Of the server itself; what something between answers is always asked again.
_RETRIED_STATUS = (408, 429, 500, 503)


class TroubleError(Exception):
    """What another try may mend.

    Attributes:
        is_odd: Whether something between answered, and not the server.
        asked_seconds: How long the answer asks to wait.
        has_moved: Whether there is more of a file than before: patience begins anew.
        refusal: What the call ends with when patience does; None for that the server is unavailable.
    """

    def __init__(
        self,
        trouble: str,
        *,
        is_odd: bool = False,
        has_moved: bool = False,
        asked_seconds: float = 0.0,
        refusal: GKTError | None = None,
    ) -> None:
        super().__init__(trouble)
        self.is_odd, self.has_moved = is_odd, has_moved
        self.asked_seconds, self.refusal = asked_seconds, refusal


def judge(
    response: httpx.Response, read: Callable[[httpx.Response], AnswerT], stall_seconds: float
) -> AnswerT:
    """Read an answer, or say whether another try may mend it.

    Args:
        response: The answer.
        read: Reads one that is no refusal.
        stall_seconds: How long a refusal may bring next to nothing.

    Raises:
        TroubleError: It may.
        GKTError: It may not: the server refused.
    """
    asked = _retry_after(response)
    try:
        if response.status_code < 300:
            return read(response)
        refusal = refusal_of(response, stall_seconds=stall_seconds)
    except OddAnswerError as error:
        raise TroubleError(str(error), is_odd=True, asked_seconds=asked) from error
    trouble = f"status {response.status_code}: {refusal}"
    if isinstance(refusal, errors.ChecksumError):
        raise TroubleError(trouble, asked_seconds=asked, refusal=refusal)
    if response.status_code in _RETRIED_STATUS:
        raise TroubleError(trouble, asked_seconds=asked)
    raise refusal


def _retry_after(response: httpx.Response) -> float:
    try:
        asked = float(response.headers.get("Retry-After", "0"))
    except ValueError:
        return 0.0
    # NaN is a number as well, and no comparison holds for it.
    return min(max(0.0, asked), LONGEST_WAIT_SECONDS) if math.isfinite(asked) else 0.0
