"""Tell who asks on this machine itself from whom a proxy or another site's script sends."""

from __future__ import annotations

import ipaddress

from flask import Request

# What a proxy adds, of which many know one or two.
_OF_PROXIES = ("forwarded", "via", "x-real-ip", "x-client-ip", "true-client-ip", "cf-connecting-ip")
_OF_ALL_PROXIES = "x-forwarded-"
_OWN_SITES = ("same-origin", "none")


def is_asked_here(request: Request) -> bool:
    """Say whether a request comes from this machine: from a loopback address, for a loopback name, no proxy.

    Behind a proxy everybody has its address. A name that leads to loopback and belongs to somebody else
    (DNS rebinding) would let a page from elsewhere read the answer.
    """
    names = [name.lower() for name, _ in request.headers]
    if any(name in _OF_PROXIES or name.startswith(_OF_ALL_PROXIES) for name in names):
        return False
    if request.headers.get("Sec-Fetch-Site", "none") not in _OWN_SITES:
        return False
    return _is_loopback(request.remote_addr or "") and _is_loopback_name(request.headers.get("Host", ""))


def _is_loopback_name(host: str) -> bool:
    name = host.lower()
    if name.startswith("["):
        return _is_loopback(name[1:].partition("]")[0])
    name = name.partition(":")[0].removesuffix(".")
    return name == "localhost" or name.endswith(".localhost") or _is_loopback(name)


def _is_loopback(address: str) -> bool:
    try:
        read = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = read.ipv4_mapped if isinstance(read, ipaddress.IPv6Address) else None
    return (mapped or read).is_loopback
