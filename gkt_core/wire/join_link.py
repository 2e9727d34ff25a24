"""The link that lets a device into a run: where the server is, whom to trust there, a token to enrol with.

::

    gkt+https://host:port/#enroll=NUMBER.SECRET&bundle=sha256:HEX&ca=sha256:HEX
    https://host:port/join#enroll=NUMBER.SECRET&bundle=sha256:HEX&ca=sha256:HEX

Both say the same; the second one is a page of the server's, for a phone.
What stands behind ``#`` is never sent by what follows a link. ``bundle`` is the hash of the bundle's manifest
(:func:`gkt_core.bundle.manifest.manifest_sha256`), ``ca`` that of the authority that signed the
server's certificate; it is left out where a public authority did, and in ``gkt+http`` there is none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from gkt_core.errors import ConfigError
from gkt_core.wire.credentials import ENROLMENT, Bearer, is_sha256

# The file in a server's --data-dir that keeps the link.
JOIN_NAME = "join"
SCHEMES = ("gkt+http", "gkt+https")
_BEGINNING = re.compile(r"gkt\+https?://", re.IGNORECASE)
_PAGE = re.compile(r"(https?://[^?#]*)/join/?(#enroll=.*)", re.IGNORECASE | re.DOTALL)
_ENROL = re.compile(r"([0-9a-f]{8,32})\.([A-Za-z0-9_-]{20,128})")
_HASHED = "sha256:"
_LONGEST = 2000
_SHAPE = "gkt+https://HOST:PORT/#enroll=...&bundle=sha256:...&ca=sha256:..."
_AGAIN = "copy the whole link that gkt serve or gkt enroll printed, in quotes, or keep it in a file"


@dataclass(frozen=True, slots=True)
class JoinLink:
    """What a link says.

    Attributes:
        url: Of the server, ``https://host:port``, perhaps with a path.
        enrolment: Number of the enrolment.
        secret: Its token; never shown.
        bundle_sha256: Of the manifest of the run's bundle.
        ca_sha256: Of the authority's certificate (DER); empty where the usual ones are trusted.
    """

    url: str
    enrolment: str
    secret: str = field(repr=False)
    bundle_sha256: str
    ca_sha256: str = ""

    def text(self) -> str:
        """The link."""
        return f"gkt+{self.url.rstrip('/')}/#{self._fragment()}"

    def page(self) -> str:
        """The link as the address of the server's page, which a phone opens."""
        return f"{self.url.rstrip('/')}/join#{self._fragment()}"

    def _fragment(self) -> str:
        pinned = f"&ca={_HASHED}{self.ca_sha256}" if self.ca_sha256 else ""
        return f"enroll={self.enrolment}.{self.secret}&bundle={_HASHED}{self.bundle_sha256}{pinned}"

    @property
    def bearer(self) -> Bearer:
        """What the server is shown until the device has a secret of its own."""
        return Bearer(ENROLMENT, self.enrolment, self.secret)


def is_join_link(text: str) -> bool:
    """Say whether somebody means this as a link, whole or not."""
    text = text.strip()
    return _BEGINNING.match(text) is not None or _PAGE.fullmatch(text) is not None


def read_join_link(text: str) -> JoinLink:
    """Read a link.

    Raises:
        ConfigError: It is none, or a part of it is missing, unknown or not what it should be. The message
            does not hold the token.
    """
    text = text.strip()
    if page := _PAGE.fullmatch(text):
        text = f"gkt+{page[1]}/{page[2]}"
    if not is_join_link(text):
        raise ConfigError(f"this is no link into a run: expected {_SHAPE}: {_AGAIN}")
    if len(text) > _LONGEST or not text.isascii() or not text.isprintable() or " " in text:
        raise ConfigError(f"the link is longer than any, or holds blanks or odd characters: {_AGAIN}")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"the address in the link cannot be read: expected {_SHAPE}: {_AGAIN}") from error
    if not host or "@" in parts.netloc or parts.query or port == 0:
        raise ConfigError(f"the address in the link is not one of a server: expected {_SHAPE}: {_AGAIN}")
    scheme = parts.scheme.lower()
    said = _said(parts.fragment)
    enrol = _ENROL.fullmatch(said["enroll"])
    if enrol is None:
        raise ConfigError(f"the link's enroll is not NUMBER.TOKEN, is it cut short? {_AGAIN}")
    hashes = {name: _hash(name, said[name]) for name in ("bundle", "ca") if name in said}
    if scheme == "gkt+http" and "ca" in hashes:
        raise ConfigError("the link names an authority (ca) and is gkt+http: expected gkt+https")
    url = f"{scheme.removeprefix('gkt+')}://{parts.netloc}{parts.path.rstrip('/')}"
    return JoinLink(url, enrol[1], enrol[2], hashes["bundle"], hashes.get("ca", ""))


def _said(fragment: str) -> dict[str, str]:
    said: dict[str, str] = {}
    for each in fragment.split("&") if fragment else []:
        name, equals, value = each.partition("=")
        if name not in ("enroll", "bundle", "ca") or not equals:
            raise ConfigError(
                f"the link says {name[:20]!r}, which this version does not know: install the server's "
                "version of gkt-edge, or look whether something was added to the link"
            )
        if name in said:
            raise ConfigError(f"the link says {name} twice: {_AGAIN}")
        said[name] = value
    for name in ("enroll", "bundle"):
        if name not in said:
            raise ConfigError(f"the link does not say {name} (a shell cuts it at & without quotes): {_AGAIN}")
    return said


def _hash(name: str, value: str) -> str:
    if not value.startswith(_HASHED) or not is_sha256(value.removeprefix(_HASHED)):
        raise ConfigError(f"the link's {name} is not sha256: and 64 hexadecimal digits: {_AGAIN}")
    return value.removeprefix(_HASHED)


def given_join_link(given: str) -> JoinLink:
    """Read a link, or the file that holds one: what stands on a command line is in every process list.

    Raises:
        ConfigError: It is neither, or cannot be read.
    """
    if is_join_link(given):
        return read_join_link(given)
    try:
        # No file that holds a link is longer.
        with Path(given).expanduser().open(encoding="utf-8") as stream:
            return read_join_link(stream.read(2 * _LONGEST))
    except (OSError, UnicodeError, ValueError) as error:
        raise ConfigError(
            f"{given[:200]!r} is no link into a run, and no file that holds one: {_why(error)}: {_AGAIN}"
        ) from error


def _why(error: Exception) -> str:
    return error.strerror or "it cannot be read" if isinstance(error, OSError) else "it is not text"
