"""Which proxy leads to a server: the one that was given, the environment's, or none.

The environment's are ``HTTPS_PROXY``, ``HTTP_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``, in small letters too,
as Python and other programs read them; where none is set, the settings of macOS or Windows. ``NO_PROXY``
holds host names (which stand for what is below them as well), addresses and networks such as ``10.0.0.0/8``,
each with a port if it shall mean that one alone, or ``*``.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import urllib.request
from dataclasses import dataclass

import httpx

from gkt_core.errors import ConfigError, MissingExtraError
from gkt_core.wire.addresses import is_loopback

_SCHEMES = ("http", "https", "socks5", "socks5h")


@dataclass(frozen=True, slots=True)
class ChosenProxy:
    """A proxy, and who named it.

    Attributes:
        proxy: What httpx takes; None for a straight connection.
        name: For a log: without user name and password. Empty for a straight connection.
    """

    proxy: httpx.Proxy | None
    name: str = ""


def choose_proxy(server: httpx.URL, given: str | None = None, *, is_off: bool = False) -> ChosenProxy:
    """Say how to reach a server.

    This machine is reached without a proxy, unless one was given.

    Args:
        server: Its URL.
        given: URL of the proxy to use whatever the environment says.
        is_off: Whether none is to be used whatever the environment says.

    Raises:
        ConfigError: The proxy's URL cannot be used (the message does not hold its password), or a proxy and
            none were asked for.
        MissingExtraError: A SOCKS proxy without the package that speaks it.
    """
    if given is not None:
        if is_off:
            raise ConfigError("--proxy and --no-proxy were given: expected one of them")
        return _opened(given, "--proxy")
    if is_off or is_loopback(server.host):
        return ChosenProxy(None)
    named = urllib.request.getproxies()
    scheme = server.scheme if named.get(server.scheme) else "all"
    url = named.get(scheme)
    if not url or _is_excepted(server, named.get("no", "")):
        return ChosenProxy(None)
    # Whoever sets the variable may leave the scheme out, as with curl.
    return _opened(url if "://" in url else f"http://{url}", f"{scheme.upper()}_PROXY")


def proxy_hint(refusal: str) -> str:
    """Say what to do about a proxy that does not let a connection through.

    Args:
        refusal: What it answered, status first.
    """
    if refusal.startswith("407"):
        return (
            "the proxy wants a user name and a password: http://name:password@proxy:3128 in HTTPS_PROXY "
            "(HTTP_PROXY for http) or --proxy"
        )
    return "the proxy does not let this device through to the server: ask who runs it, or try --no-proxy"


def _opened(url: str, source: str) -> ChosenProxy:
    try:
        parsed = httpx.URL(url)
        is_usable = parsed.scheme in _SCHEMES and bool(parsed.host) and (parsed.port or 1) <= 65535
    except (httpx.InvalidURL, UnicodeError, ValueError):
        is_usable = False
    if not is_usable:
        # Not shown: it may hold a password wherever the mistake is.
        raise ConfigError(
            f"the proxy of {source} cannot be used: expected a URL such as http://proxy:3128, with a user "
            "name as http://name:password@proxy:3128 (a '@', ':' or '/' in either as %40, %3A, %2F)"
        )
    if parsed.scheme.startswith("socks") and importlib.util.find_spec("socksio") is None:
        raise MissingExtraError(
            f"the proxy of {source} speaks SOCKS, and the module socksio is not installed: "
            "pip install 'httpx[socks]', give another --proxy, or --no-proxy"
        )
    port = "" if parsed.port is None else f":{parsed.port}"
    host = f"[{parsed.host}]" if ":" in parsed.host else parsed.host
    return ChosenProxy(httpx.Proxy(parsed), f"{parsed.scheme}://{host}{port} of {source}")


def _is_excepted(server: httpx.URL, no_proxy: str) -> bool:
    """Say whether ``NO_PROXY`` names a server."""
    port = server.port or {"http": 80, "https": 443}[server.scheme]
    return any(_names(entry.strip().lower(), server.host.lower(), port) for entry in no_proxy.split(","))


def _names(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    try:
        address = ipaddress.ip_address(host)
        return address in ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        # A name here or there, or an entry with a port.
        pass
    name, colon, entry_port = entry.rpartition(":")
    if colon and entry_port.isdigit() and "]" not in entry_port:
        return int(entry_port) == port and _names(name, host, port)
    name = entry.lstrip("*").lstrip(".")
    return bool(name) and (host == name or host.endswith(f".{name}"))
