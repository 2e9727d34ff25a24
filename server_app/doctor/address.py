"""Look at where a server is to listen, and at the certificate that it is to show."""

from __future__ import annotations

import errno
import ipaddress
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psutil

from gkt_core.bundle.onnx_runtime import installed_versions
from gkt_core.doctor.findings import Finding, advice, fine, wrong
from gkt_core.doctor.machine import judged_end
from gkt_core.doctor.options import SERVE_PORT, DoctorOptions
from gkt_core.errors import ConfigError, needs
from gkt_core.wire.addresses import is_loopback

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

_SERVER_INFO = "server.json"


def own_server(folder: Path | None) -> str:
    """Give the URL of the server that is up on a run's folder; empty for none."""
    try:
        info = json.loads((folder / _SERVER_INFO).read_text(encoding="utf-8")) if folder else {}
        return str(info["url"]) if psutil.pid_exists(int(info["pid"])) else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def port(options: DoctorOptions) -> Iterator[Finding]:
    """Look whether gkt serve could listen where it is to."""
    is_server = options.port is not None or options.data_dir is not None
    if not (is_server or installed_versions(["flask"])):
        return
    wanted = options.port or SERVE_PORT
    if url := own_server(options.data_dir):
        yield fine(f"the server of {options.data_dir} is up at {url}")
        if urlsplit(url).port == wanted or options.port is None:
            return
    trouble = _trouble_of(options.host, wanted)
    if trouble == errno.EADDRINUSE:
        text = f"port {wanted} of {options.host} is in use{_by_whom(wanted)}"
        remedy = "give gkt serve another --port, or 0 for a free one; or end what has it"
        yield wrong(text, remedy) if is_server else advice(text, remedy)
    elif trouble == errno.EACCES:
        yield wrong(
            f"port {wanted} may not be listened on: below 1024 it is the system's",
            "give gkt serve a --port from 1024, and put a proxy before it",
        )
    elif trouble:
        yield wrong(
            f"{options.host} cannot be listened on: {os.strerror(trouble)}",
            "give --host an address of this machine, 127.0.0.1 or 0.0.0.0",
        )
    else:
        yield fine(f"port {wanted} of {options.host} is free")


def _trouble_of(host: str, number: int) -> int:
    """Number of the system's error in the way of listening there; 0 for none."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, number))
            probe.listen()
    except socket.gaierror:
        return errno.EADDRNOTAVAIL
    except OSError as error:
        return error.errno or errno.EINVAL
    return 0


def _by_whom(number: int) -> str:
    try:
        holders = {
            each.pid
            for each in psutil.net_connections("tcp")
            if each.status == psutil.CONN_LISTEN and each.laddr.port == number and each.pid
        }
        return "".join(f" by {psutil.Process(pid).name()} ({pid})" for pid in sorted(holders))
    except (psutil.Error, OSError):
        return ""


def certificate(options: DoctorOptions) -> Iterator[Finding]:
    """Look at the certificate that was given, and at the one that a server made for itself."""
    given = [path for path in (options.tls_cert, options.tls_key) if path is not None]
    if len(given) == 1:
        raise ConfigError("--tls-cert and --tls-key belong together: give both, or none")
    if given:
        yield from _judged(given[0], given[1], options, "renew it; gkt serve takes the new one by itself")
    elif options.data_dir is not None and (options.data_dir / "server.pem").exists():
        files = options.data_dir / "server.pem", options.data_dir / "server.key"
        yield from _judged(*files, None, "stop gkt serve and start it again: it makes another one")


def _judged(chain: Path, key: Path, options: DoctorOptions | None, remedy: str) -> Iterator[Finding]:
    """Judge a pair of files; of one's own, gkt serve looks after the names itself.

    Raises:
        ConfigError: Not PEM files, or not of each other.
    """
    with needs("server"):
        from cryptography import x509  # noqa: PLC0415 - of an extra
    from server_app.web.certificates import server_context  # noqa: PLC0415 - what Flask is needed for, too

    server_context(chain, key)
    shown = x509.load_pem_x509_certificates(chain.read_bytes())[0]
    yield judged_end(shown.not_valid_after_utc.timestamp() - time.time(), f"the certificate {chain}", remedy)
    if shown.not_valid_before_utc.timestamp() > time.time():
        yield wrong(f"the certificate {chain} does not hold yet", "look at this machine's clock")
    if os.name == "posix" and key.stat().st_mode & 0o077:
        yield wrong(f"others on this machine may read the key {key}", f"chmod 600 {key}")
    host = None if options is None else urlsplit(options.public_url or "").hostname or options.host
    if host and options is not None and (options.public_url or not _is_any(host)):
        names = _names_in(shown)
        if not any(_matches(name, host) for name in names):
            yield wrong(
                f"the certificate {chain} is for {', '.join(names) or 'no name'}, devices ask for {host}",
                "have it made for that name, or give --public-url one of its names",
            )


def _is_any(host: str) -> bool:
    """Say whether devices cannot come by this address: all addresses, or this machine's own."""
    return host in ("0.0.0.0", "::") or is_loopback(host)


def _names_in(shown: Certificate) -> list[str]:
    from cryptography import x509  # noqa: PLC0415 - of an extra

    try:
        names = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(each.value) for each in names]


def _matches(name: str, host: str) -> bool:
    name, host = name.lower(), host.lower().rstrip(".")
    try:
        return ipaddress.ip_address(name) == ipaddress.ip_address(host)
    except ValueError:
        pass
    first, _, rest = host.partition(".")
    return name == host or (bool(first) and bool(rest) and name == f"*.{rest}")
