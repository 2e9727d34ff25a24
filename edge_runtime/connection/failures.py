"""Say what a connection that failed has met, with the remedy; and what to trust at its other end."""

from __future__ import annotations

import datetime
import os
import ssl
import time
from pathlib import Path

import httpx

from edge_runtime.connection.proxies import proxy_hint
from gkt_core.errors import ConfigError, ServerUnavailableError

# No device of this version was switched on before; a board without a battery begins in 1970, or when its
# system was built.
_EARLIEST = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
# OpenSSL's X509_V_ERR_*.
_NOT_YET_VALID, _EXPIRED = 9, 10
_UNKNOWN_AUTHORITY = (18, 19, 20, 21)
_WRONG_NAME = (62, 64)


def trusting(ca_file: Path | None) -> ssl.SSLContext | bool:
    """Say which certificates to trust: those of a file, of OpenSSL's variables, or the public authorities'.

    Raises:
        ConfigError: The file cannot be used.
    """
    try:
        if ca_file is not None:
            return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"--ca-file {ca_file} cannot be used: {error}: expected certificates as a PEM file"
        ) from error
    # Where a company's proxy looks into https, its own authority stands there.
    named = os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR")
    return ssl.create_default_context() if named else True


def failure_words(error: httpx.TransportError) -> str:
    """Describe a failed connection in a line: what happened, and what to do where that is known."""
    words = f"{type(error).__name__}: {error}"
    if isinstance(error, httpx.ProxyError):
        return f"{words}: {proxy_hint(str(error))}"
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"{words}: {_certificate_hint(cause)}"
    if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
        return f"{words}: does the server speak https at this address, or only http?"
    return words


def clock_words() -> str:
    """Say that this device's clock is off by years, with the remedy; empty where it is not."""
    now = _now()
    if now >= _EARLIEST:
        return ""
    return f"{_clock(now)}: set it (timedatectl set-ntp true, or date -s), the device goes on by itself"


def _now() -> datetime.datetime:
    return datetime.datetime.fromtimestamp(time.time(), datetime.UTC)


def _clock(now: datetime.datetime) -> str:
    return f"this device's clock says {now:%Y-%m-%d %H:%M} UTC"


def _certificate_hint(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code in (_NOT_YET_VALID, _EXPIRED) and (words := clock_words()):
        return words
    clock = _clock(_now())
    if error.verify_code == _NOT_YET_VALID:
        return f"the certificate is not valid yet, and {clock}: one of both is wrong"
    if error.verify_code == _EXPIRED:
        return f"the certificate has expired, and {clock}: renew it at the server, or set the clock"
    if error.verify_code in _WRONG_NAME:
        return (
            "the certificate is for another name: give --server the name that it was made for, or make one "
            "for this name; a captive portal shows its own, too"
        )
    if error.verify_code in _UNKNOWN_AUTHORITY:
        return (
            "no authority that this device knows signed it: join with the link that the server prints, "
            "or give "
            "the certificate of who did with --ca-file"
        )
    return error.verify_message


def unanswered(url: str, proxy_name: str, seconds: float, trouble: str) -> ServerUnavailableError:
    """Say that a server did not answer for as long as it was waited for."""
    by_way_of = f" through the proxy {proxy_name}" if proxy_name else ""
    return ServerUnavailableError(
        f"{url} did not answer{by_way_of} for {seconds:.0f} s ({trouble}): "
        "is gkt serve running, and can this device reach it?"
    )
