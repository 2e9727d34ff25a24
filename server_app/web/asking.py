"""What a request handler asks of the connection that it answers, behind our web server; elsewhere nothing."""

from __future__ import annotations

from typing import Any

from server_app.turns import Turn

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Asked:
    """What a request handler asks of its connection; see :func:`send_continue` and :func:`close_after`."""

    message: Any = None
    expects_continue = False
    turn: Turn | None = None

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send, but for an answer that is kept until its device's turn has come."""
        if self.turn is None:
            super().sendall(data, flags)  # type: ignore[misc] # the socket that this stands before
        else:
            self.turn.answer += data


def send_continue(connection: Any) -> None:
    """Ask a peer for its body that waits to be asked (``Expect: 100-continue``)."""
    if getattr(connection, "expects_continue", False):
        connection.expects_continue = False
        connection.sendall(_CONTINUE)


def keep(connection: Any, turn: Turn) -> None:
    """Let the answer of the current request wait for a device's turn, if the connection can."""
    if isinstance(connection, Asked):
        connection.turn = turn


def close_after(connection: Any) -> None:
    """Let the answer of the current request be the connection's last; its body is not waited for."""
    if (message := getattr(connection, "message", None)) is not None:
        message.force_close()
