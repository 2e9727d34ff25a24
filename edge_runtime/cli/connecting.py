"""From the options of a command to the wire, and to what a run wants of its devices' images."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edge_runtime.cli.options import ConnectionOptions
from gkt_core.bundle.manifest import MANIFEST_NAME, Manifest, load_bundle
from gkt_core.errors import needs

if TYPE_CHECKING:
    from edge_runtime.server_client import ServerClient

# Opens the wire to the server of a URL.
Connect = Callable[[str], "ServerClient"]


def connect(
    url: str,
    token: str,
    options: ConnectionOptions,
    *,
    patience_seconds: float,
    note: Callable[[str], None],
) -> ServerClient:
    """Open the wire to a server.

    Args:
        url: Of the server.
        token: That it printed.
        options: The way there.
        patience_seconds: How long a call is retried; may be infinite.
        note: Told which proxy is on the way, and of each wait.

    Raises:
        ConfigError: The URL, the token or the certificates cannot be used.
        MissingExtraError: What it needs is not installed.
    """
    with needs("edge"):
        from edge_runtime.server_client import ServerClient  # noqa: PLC0415 - imports an extra
    server = ServerClient(
        url,
        token,
        ca_file=options.ca_file,
        proxy=options.proxy,
        no_proxy=options.no_proxy,
        patience_seconds=patience_seconds,
        stall_seconds=options.stall_seconds,
        on_retry=note,
    )
    if server.proxy_name:
        note(f"goes through the proxy {server.proxy_name}")
    return server


def manifest_for(place: str, connect: Connect) -> Manifest:
    """Read the manifest of a bundle from wherever it is to be had.

    Args:
        place: Folder of a bundle or its manifest.json, or the URL of the server of a run.
        connect: Opens the wire, if it takes one.

    Raises:
        ArtifactError: There is no bundle, or its manifest is not valid.
        GKTError: The server cannot be asked.
    """
    read = next(read for pattern, read in _PLACES if pattern.match(place))
    return read(place, connect)


def _of_server(url: str, connect: Connect) -> Manifest:
    with contextlib.closing(connect(url)) as server:
        return Manifest.from_dict(server.run_info().manifest)


def _of_folder(place: str, connect: Connect) -> Manifest:
    path = Path(place)
    return load_bundle(path.parent if path.name == MANIFEST_NAME else path, ()).manifest


# What a place may be, the first that fits: another kind, such as a link that invites to a run, is a line.
_PLACES = ((re.compile(r"https?://", re.IGNORECASE), _of_server), (re.compile(""), _of_folder))
