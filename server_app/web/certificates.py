"""Serve https with the certificate that lies in a file now, without a restart when it is renewed."""

from __future__ import annotations

import logging
import ssl
import threading
from pathlib import Path

from gkt_core.errors import ConfigError

_logger = logging.getLogger("gkt.server")
_Stamp = tuple[tuple[int, int, int], ...]


class Certificates:
    """Gives each new connection its context: one for all until a file changes.

    Args:
        certificate: Chain (PEM).
        key: Its private key (PEM).

    Raises:
        ConfigError: Not PEM files, or not of each other.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files, self._looking = (certificate, key), threading.Lock()
        self._stamp, self._context = self._stamp_now(), server_context(certificate, key)

    def context(self) -> ssl.SSLContext:
        """Give the context of a connection; while what lies there cannot be used, the one before."""
        with self._looking:
            stamp = self._stamp_now()
            if stamp != self._stamp:
                # Half of a pair, in the middle of being renewed, is looked at again when the other half
                # comes.
                self._stamp = stamp
                try:
                    self._context = server_context(*self._files)
                    _logger.warning("the certificate was renewed: %s", self._files[0])
                except ConfigError as error:
                    _logger.error("the certificate stays the one before: %s", error)
            return self._context

    def _stamp_now(self) -> _Stamp:
        stamps = []
        for path in self._files:
            try:
                status = path.stat()
                stamps.append((status.st_mtime_ns, status.st_size, status.st_ino))
            except OSError:
                stamps.append((0, 0, 0))
        return tuple(stamps)


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Make a server's context.

    Raises:
        ConfigError: Not PEM files, or not of each other.
    """
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"certificate {certificate} and key {key} cannot be used: {error}: expected PEM files that "
            "belong together"
        ) from error
    return context
