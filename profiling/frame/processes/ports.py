"""Ports of the loopback address for servers that may be killed and come back."""

from __future__ import annotations

import errno
import random
import socket

from gkt_core.errors import RunFailedError

# Below the ports that systems give to outgoing connections. A device that tries to reach a server that is
# down could otherwise be given the server's own port, and would then keep it from coming back.
_PORTS = range(15_000, 30_000)


def free_port() -> int:
    """Draw a port that nobody has just now, and that no outgoing connection is given."""
    # Not from a seed: two runs on one machine must not meet.
    for port in random.SystemRandom().sample(_PORTS, 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                return port
    raise RunFailedError(f"no free port from {_PORTS.start} to {_PORTS.stop - 1}")
