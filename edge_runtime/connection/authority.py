"""Trust one authority: the server's own, whose hash stands in the join link.

The device asks whoever answers for the authority's certificate, before it says anything of itself, and
compares its hash. From then on it trusts that authority and no other. It signs for one server alone, so
that the name under which a device reaches it says nothing more and is not compared: a server may move.
"""

from __future__ import annotations

import hashlib
import ssl

from gkt_core.errors import AuthenticationError


def unverified() -> ssl.SSLContext:
    """For the question who the authority is, and nothing else."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def pinned(authority: str) -> ssl.SSLContext:
    """For all that follows: a server whose certificate this authority (PEM) has signed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=authority)
    context.check_hostname = False
    return context


def checked_authority(url: str, certificate: bytes, ca_sha256: str) -> str:
    """Give a certificate (PEM), if it is the link's.

    Args:
        url: Of the server, for the message.
        certificate: What the server says of its authority.
        ca_sha256: The hash in the link.

    Raises:
        AuthenticationError: It is another one, or no certificate.
    """
    try:
        text = certificate.decode("ascii")
        sha256 = hashlib.sha256(ssl.PEM_cert_to_DER_cert(text.strip())).hexdigest()
    except ValueError:
        text, sha256 = "", "no certificate"
    if sha256 != ca_sha256:
        raise AuthenticationError(
            f"{url} is not the server of the link: its authority is sha256:{sha256}, the link says "
            f"sha256:{ca_sha256}. "
            "Somebody stands between, or another server answers there: ask for another link"
        )
    return text
