"""Look at a server as a device would: whether it answers, who it is, what time it has, what its run needs."""

from __future__ import annotations

import email.utils
import functools
import http.client
import json
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from edge_runtime.connection.authority import checked_authority, pinned, unverified
from edge_runtime.state.credential import kept_credential
from gkt_core.bundle.manifest import Manifest
from gkt_core.config.run_config import RunConfig
from gkt_core.doctor.bundles import judged_memory
from gkt_core.doctor.findings import Finding, advice, fine, wrong
from gkt_core.doctor.machine import CLOCK_SECONDS, judged_end
from gkt_core.doctor.options import DoctorOptions
from gkt_core.errors import ConfigError, ServerUnavailableError, needs
from gkt_core.printable import printable
from gkt_core.wire.addresses import is_loopback, is_readable_on_the_way
from gkt_core.wire.join_link import JoinLink, given_join_link
from gkt_core.wire.paths import AUTHORITY, HEALTHZ, READYZ

_SECONDS = 10.0
_MOST_BYTES = 64 << 10
_REACH = "is gkt serve running there, and can this machine reach it (address, firewall, proxy)?"


def server(options: DoctorOptions) -> Iterator[Finding]:
    """Ask the server of a link, a URL or a device's folder for nothing but a sign of life."""
    link = None if options.join is None else given_join_link(options.join)
    kept = None if options.state_dir is None else kept_credential(options.state_dir)
    url = link.url if link else options.server or (kept.url if kept else "")
    if not url:
        return
    try:
        trust = _trust(url, link, "" if kept is None or link else kept.authority, options)
        answer, date = _ask(url, HEALTHZ, trust)
        trouble = _trouble_in(_ask(url, READYZ, trust)[0])
        ends_at = _certificate_end(url, trust)
    except ssl.SSLCertVerificationError as error:
        yield _untrusted(url, error)
        return
    if not _is_ours(answer):
        yield wrong(
            f"{url} answers, and not as a server of gkt does", "look at the address, and what is between"
        )
        return
    if trouble:
        yield wrong(f"{url} answers, and its run cannot go on: {trouble}", "on its machine: gkt status")
    else:
        yield fine(f"{url} answers, and its run can go on")
    yield from judged_clock(date, time.time())
    if is_readable_on_the_way(url):
        yield advice(f"{url} is plain http: whoever is between reads features and secrets", "ask for https")
    if ends_at is not None:
        yield judged_end(
            ends_at - time.time(), f"the certificate of {url}", "whoever runs the server renews it"
        )


def judged_clock(date: str | None, now: float) -> Iterator[Finding]:
    """Compare a server's ``Date`` with the time here."""
    parsed = None if date is None else email.utils.parsedate_to_datetime(date)
    if parsed is not None:
        apart = now - parsed.timestamp()
        if abs(apart) > CLOCK_SECONDS:
            yield wrong(
                f"this clock is {abs(apart):.0f} s {'ahead of' if apart > 0 else 'behind'} the server's: "
                "certificates and links are taken for ended, or not begun",
                "set the clock that is wrong, and keep it right: timedatectl set-ntp true",
            )
        else:
            yield fine("its clock and this one agree")


def run(options: DoctorOptions) -> Iterator[Finding]:
    """Ask for the run of a link, as a guest: whether its bundle is the link's, and what it takes here."""
    if options.join is None:
        return
    link = given_join_link(options.join)
    with needs("edge"):
        from edge_runtime.engines.choice import choose_engine  # noqa: PLC0415 - imports an extra
        from edge_runtime.membership import as_guest  # noqa: PLC0415
        from edge_runtime.server_client import ServerClient  # noqa: PLC0415
    wire = functools.partial(_wire, ServerClient)
    client = as_guest(link, wire)
    try:
        info = client.run_info()
    finally:
        client.close()
    manifest, config = Manifest.from_dict(info.manifest), RunConfig.from_dict(info.config)
    engine = choose_engine(manifest)
    yield fine(
        f"{info.run_id} lets this link in and has its bundle: {manifest.edge_network}, "
        f"{manifest.num_classes} classes, {manifest.image_size} px; {engine.replace('_', '-')} would train"
    )
    yield from judged_memory(manifest, config, [engine])


def _wire(
    client: Any, url: str, token: str | None, *, trust: ssl.SSLContext | None = None, bundle_sha256: str = ""
) -> Any:
    # Whoever does not answer is waited for nowhere else: the check before this one has said so.
    expected = bundle_sha256 or None
    return client(url, token, trust=trust, expected_manifest_sha256=expected, patience_seconds=0.0)


def _trust(url: str, link: JoinLink | None, authority: str, options: DoctorOptions) -> ssl.SSLContext | None:
    if not url.lower().startswith("https:"):
        return None
    if link is not None and link.ca_sha256:
        certificate, _ = _ask(url, AUTHORITY, unverified())
        return pinned(checked_authority(url, certificate, link.ca_sha256))
    if authority:
        return pinned(authority)
    try:
        return ssl.create_default_context(cafile=None if options.ca_file is None else str(options.ca_file))
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"--ca-file {options.ca_file} holds no certificates (PEM): give a file that does"
        ) from error


def _ask(url: str, path: str, trust: ssl.SSLContext | None) -> tuple[bytes, str | None]:
    """Give the body of an answer, and its date; a refusal is an answer."""
    handlers: list[urllib.request.BaseHandler] = []
    if trust is not None:
        handlers.append(urllib.request.HTTPSHandler(context=trust))
    if is_loopback(urlsplit(url).hostname or ""):
        # On this machine no proxy is between.
        handlers.append(urllib.request.ProxyHandler({}))
    try:
        with urllib.request.build_opener(*handlers).open(url.rstrip("/") + path, timeout=_SECONDS) as answer:
            return answer.read(_MOST_BYTES), answer.headers.get("Date")
    except urllib.error.HTTPError as error:
        with error:
            return error.read(_MOST_BYTES), error.headers.get("Date")
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise reason from error
        raise ServerUnavailableError(
            f"{url} does not answer ({printable(str(reason))[:200]}): {_REACH}"
        ) from error


def _certificate_end(url: str, trust: ssl.SSLContext | None) -> float | None:
    """When the certificate ends that a server shows; None where there is none to be seen from here."""
    parts = urlsplit(url)
    if trust is None or not parts.hostname:
        return None
    try:
        with (
            socket.create_connection((parts.hostname, parts.port or 443), timeout=_SECONDS) as plain,
            trust.wrap_socket(plain, server_hostname=parts.hostname) as secured,
        ):
            shown: Any = secured.getpeercert()
            return float(ssl.cert_time_to_seconds(shown["notAfter"]))
    except ssl.SSLCertVerificationError:
        raise
    except (OSError, KeyError):
        # Only a proxy reaches it.
        return None


def _untrusted(url: str, error: ssl.SSLCertVerificationError) -> Finding:
    why = error.verify_message or str(error)
    remedy = "take the link of gkt serve, which says whom to trust, or give --ca-file"
    if "expired" in why or "not yet valid" in why:
        remedy = (
            "set this machine's clock if it is wrong; else whoever runs the server renews the certificate"
        )
    elif "mismatch" in why or "not valid for" in why:
        remedy = "use the name that stands in the certificate, or have it made for this one"
    return wrong(f"the certificate of {url} is not trusted: {printable(why)[:200]}", remedy)


def _is_ours(answer: bytes) -> bool:
    return "status" in _said(answer)


def _trouble_in(answer: bytes) -> str:
    return printable(str(_said(answer).get("message", "")))[:300]


def _said(answer: bytes) -> dict[str, Any]:
    try:
        said = json.loads(answer)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}
