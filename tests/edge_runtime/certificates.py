"""Certificates as servers have them: good ones, expired ones, those of another name or of nobody known."""

from __future__ import annotations

import contextlib
import datetime
import http.server
import ipaddress
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gkt_core.wire.protocol import PROTOCOL_VERSION, RunInfo, RunList, to_json
from tests.edge_runtime.in_thread import answering

_DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Certificate:
    """Two PEM files."""

    certificate: Path
    key: Path


def make_certificate(
    folder: Path, *hosts: str, begins_in: datetime.timedelta = -_DAY, ends_in: datetime.timedelta = _DAY
) -> Certificate:
    """A certificate that signs itself, for hosts that are names or addresses."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gkt")])
    now = datetime.datetime.now(datetime.UTC)
    alternatives: list[x509.GeneralName] = []
    for host in hosts:
        try:
            alternatives.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            alternatives.append(x509.DNSName(host))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now + begins_in)
        .not_valid_after(now + ends_in)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(parents=True, exist_ok=True)
    files = Certificate(folder / "cert.pem", folder / "key.pem")
    files.certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    files.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, *secret))
    return files


@contextlib.contextmanager
def one_run(certificate: Certificate | None = None) -> Iterator[int]:
    """A server on a port of this machine that knows of one run, ``run-7``, and of nothing else."""
    answers = {"/v1/runs": RunList(PROTOCOL_VERSION, ["run-7"])}
    info = to_json(RunInfo(PROTOCOL_VERSION, "run-7", {}, {}))

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None: ...

        def do_GET(self) -> None:
            body = to_json(answers[self.path]) if self.path in answers else info
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    class Server(http.server.ThreadingHTTPServer):
        def get_request(self) -> tuple[Any, Any]:
            connection, address = super().get_request()
            # In the thread of the request: a peer that does not trust this server ends none but its own.
            if context is None:
                return connection, address
            return context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Say nothing: peers that do not trust the certificate are what is tested."""

    context: ssl.SSLContext | None = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.certificate, certificate.key)
    server = Server(("127.0.0.1", 0), Handler)
    with answering(server) as port:
        yield port
