"""What a request handler asks of the connection that it answers, behind our web server; elsewhere nothing."""

from __future__ import annotations

from typing import Any

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Asked:
    """What a request handler asks of its connection; see :func:`send_continue` and :func:`close_after`."""

    message: Any = None
    expects_continue = False


def send_continue(connection: Any) -> None:
    """Ask a peer for its body that waits to be asked (``Expect: 100-continue``)."""
    if getattr(connection, "expects_continue", False):
        connection.expects_continue = False
        connection.sendall(_CONTINUE)


def close_after(connection: Any) -> None:
    """Let the answer of the current request be the connection's last; its body is not waited for."""
    if (message := getattr(connection, "message", None)) is not None:
        message.force_close()
