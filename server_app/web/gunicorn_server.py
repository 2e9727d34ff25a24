"""The web server: gunicorn's threaded worker inside this process, plain or with TLS.

Chosen by measurement (docs/adr/0009). The worker runs without gunicorn's arbiter, which would be one more
process between ``gkt serve`` and the requests: the listening socket, signals and restarts are ours.
"""

from __future__ import annotations

import os
import socket
import ssl
import struct
import sys
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.config import Config
from gunicorn.glogging import Logger

from server_app.web.certificates import Certificates
from server_app.web.connections import HEAD_SECONDS, Worker
from server_app.web.peers.answering import answering_later
from server_app.web.peers.descriptors import raise_descriptor_limit
from server_app.web.peers.queueing import KNOWS

# A stalled upload holds one until the stall ends it. Connections without a whole head or message, and those
# whose peers do not read, hold none, and unused threads are never started.
WEB_THREADS = 64
MAX_CONNECTIONS = 4096
# A device that sends nothing for so long, in the middle of a request, is gone; it will come again.
STALL_SECONDS = 30
_KEEP_ALIVE_SECONDS = 60
_GRACEFUL_SECONDS = 5


class WebServer:
    """Serve an application on a socket that is bound already.

    Args:
        app: A WSGI application.
        listener: The socket.
        tls: Certificate and key files (PEM); None for plain HTTP.
        num_threads: Requests at once.
        stall_seconds: How long a peer may be silent in the middle of a body or an answer.
        head_seconds: What a handshake and the head of a request may take together.
        max_connections: Beyond them, the one that has waited longest for its peer gives way.

    Raises:
        ConfigError: Certificate and key cannot be used.
    """

    def __init__(
        self,
        app: Any,
        listener: socket.socket,
        *,
        tls: tuple[Path, Path] | None = None,
        num_threads: int = WEB_THREADS,
        stall_seconds: float = STALL_SECONDS,
        head_seconds: float = HEAD_SECONDS,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        settings: dict[str, Any] = {
            "threads": num_threads,
            "worker_connections": max(raise_descriptor_limit(max_connections), num_threads + 1),
            "keepalive": _KEEP_ALIVE_SECONDS,
            "graceful_timeout": _GRACEFUL_SECONDS,
            "loglevel": "error",
            # No proxy is believed what it says about others.
            "forwarded_allow_ips": "",
        }
        if tls is not None:
            # For what gunicorn tells the application of the scheme; the handshake is ours.
            settings |= {"certfile": str(tls[0]), "keyfile": str(tls[1])}
        application = _Application(app, settings)
        # Accepted sockets inherit both: no read and no write of gunicorn's or ours waits longer.
        timeout = struct.pack("@ll", int(stall_seconds), int(stall_seconds % 1 * 1_000_000))
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            listener.setsockopt(socket.SOL_SOCKET, option, timeout)
        self._worker = Worker(
            0, os.getppid(), [listener], application, 0, application.cfg, _Log(application.cfg)
        )
        self._worker.head_seconds, self._worker.silence_seconds = head_seconds, stall_seconds
        self._worker.knows = getattr(app, "extensions", {}).get(KNOWS)
        if tls is not None:
            self._worker.certificates = Certificates(*tls)

    def run(self) -> None:
        """Serve until :meth:`stop`; in a thread of its own, so that no signal interrupts a request."""
        try:
            self._worker.init_process()
        finally:
            # What an arbiter would leave to the end of the process.
            self._worker.tmp.close()
            for descriptor in self._worker.PIPE:
                os.close(descriptor)

    def stop(self) -> None:
        """Take no more requests; those that are being handled may end."""
        self._worker.handle_exit(None, None)


class _Application(BaseApplication):  # type: ignore[misc]
    """gunicorn's settings and our application, without its command line."""

    def __init__(self, app: Any, settings: dict[str, Any]) -> None:
        self._app, self._settings = app, settings
        super().__init__()

    def do_load_config(self) -> None:
        # Nothing from GUNICORN_CMD_ARGS or a file of the current folder, and no exit on errors.
        self.cfg = Config()
        self.load_config()

    def load_config(self) -> None:
        for name, value in self._settings.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        return answering_later(self._app)


class _Log(Logger):  # type: ignore[misc]
    """gunicorn's log as a part of ours, without a traceback for each device whose link stalls."""

    def setup(self, cfg: Any) -> None:
        """Leave to whoever set up logging where lines go, and how they look."""
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True

    def exception(self, msg: str, *args: Any, **kwargs: Any) -> None:
        if not isinstance(sys.exc_info()[1], BlockingIOError | TimeoutError | ssl.SSLWantReadError):
            super().exception(msg, *args, **kwargs)
