"""From the options of a command to the wire, and to what a run wants of its devices' images."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edge_runtime.cli.options import ConnectionOptions
from gkt_core.bundle.manifest import MANIFEST_NAME, Manifest, load_bundle
from gkt_core.errors import ArtifactError, ConfigError, needs
from gkt_core.wire.addresses import is_readable_on_the_way
from gkt_core.wire.join_link import JOIN_NAME, given_join_link

if TYPE_CHECKING:
    from edge_runtime.cli.options import RunOptions
    from edge_runtime.server_client import ServerClient
    from edge_runtime.state.identity import Identity
    from gkt_core.wire.protocol import RunInfo

# Opens the wire to the server of a URL or a join link.
Connect = Callable[[str], "ServerClient"]
OLD_TOKEN = (
    "warning: the shared token speaks for every device, and goes with the next release: use the join "
    "link that "
    "gkt serve prints"
)


def connect(
    url: str,
    token: str | None,
    options: ConnectionOptions,
    *,
    patience_seconds: float,
    note: Callable[[str], None],
    trust: ssl.SSLContext | None = None,
    bundle_sha256: str = "",
) -> ServerClient:
    """Open the wire to a server.

    Args:
        url: Of the server.
        token: What it is shown; None for nothing.
        options: The way there.
        patience_seconds: How long a call is retried; may be infinite.
        note: Told which proxy is on the way, who may read along, and of each wait.
        trust: What to trust for https; by default what the options say.
        bundle_sha256: The pin of the run's bundle; empty for none.

    Raises:
        ConfigError: The URL, the token or the certificates cannot be used.
        MissingExtraError: What it needs is not installed.
    """
    with needs("edge"):
        from edge_runtime.connection.failures import clock_words  # noqa: PLC0415 - imports an extra
        from edge_runtime.server_client import ServerClient  # noqa: PLC0415
    server = ServerClient(
        url,
        token,
        ca_file=None if trust is not None else options.ca_file,
        trust=trust,
        expected_manifest_sha256=bundle_sha256 or None,
        proxy=options.proxy,
        no_proxy=options.no_proxy,
        patience_seconds=patience_seconds,
        stall_seconds=options.stall_seconds,
        on_retry=note,
    )
    if words := clock_words():
        # Over plain http nothing fails of it, and what is written down says a wrong time.
        note(f"WARNING: {words}")
    if server.proxy_name:
        note(f"goes through the proxy {server.proxy_name}")
    if is_readable_on_the_way(url) and token is not None:
        note(
            f"WARNING: {url} is plain http to another machine: features, labels and this device's secret "
            "can be read "
            "and changed by whoever is between; ask for a server with https"
        )
    return server


def enter(
    options: RunOptions,
    folder: Path | None,
    identity: Identity,
    note: Callable[[str], None],
    check: Callable[[RunInfo], object],
) -> ServerClient:
    """Open the wire for the device of a state folder: as a member of the run, or, without folder, as a guest.

    Args:
        options: Of the command.
        folder: The state folder.
        identity: Of the device.
        note: Told what happens, without secrets.
        check: Called with the run before this device becomes a member of it.

    Raises:
        AuthenticationError: The server is not the link's, or takes neither link nor secret.
        ConfigError: There is no way in.
    """
    with needs("edge"):
        from edge_runtime.membership import as_guest, as_member  # noqa: PLC0415 - imports an extra
        from edge_runtime.state.credential import kept_credential  # noqa: PLC0415
    wire = functools.partial(
        connect, options=options.connection, patience_seconds=options.patience, note=note
    )
    link = None if options.join is None else given_join_link(options.join)
    if link is not None and options.url is not None:
        raise ConfigError(
            "--join and --server were given: the link says where the server is, leave out --server"
        )
    is_member = folder is not None and kept_credential(folder) is not None
    if options.token is not None and link is None and not is_member:
        if options.url is None:
            raise ConfigError(
                "--token (or GKT_TOKEN) is given without --server: give --join LINK instead of both"
            )
        note(OLD_TOKEN)
        return wire(options.url, options.token)
    if folder is not None:
        return as_member(folder, identity, wire, note, link=link, url=options.url, check=check)
    if link is None:
        raise ConfigError(
            "a dry run takes the join link of gkt serve: --join LINK, a file that holds it, or GKT_JOIN"
        )
    return as_guest(link, wire)


def manifest_for(place: str, connect: Connect) -> Manifest:
    """Read the manifest of a bundle from wherever it is to be had.

    Args:
        place: Folder of a bundle or its manifest.json; a join link, a file that holds one, or the URL of a
            server.
        connect: Opens the wire, if it takes one.

    Raises:
        ArtifactError: There is no such place, no bundle, or its manifest is not valid.
        GKTError: The server cannot be asked.
    """
    read = next(read for pattern, read in _PLACES if pattern.match(place))
    return read(place, connect)


def _of_server(url: str, connect: Connect) -> Manifest:
    with contextlib.closing(connect(url)) as server:
        return Manifest.from_dict(server.run_info().manifest)


def _of_folder(place: str, connect: Connect) -> Manifest:
    path = Path(place)
    if not os.path.exists(path):
        raise ArtifactError(
            f"there is no {place}: expected the folder of gkt export, or the link that gkt serve prints, or "
            f"a file that holds it; a server writes {JOIN_NAME} into its --data-dir as soon as it answers"
        )
    if (path / JOIN_NAME).is_file() and not (path / MANIFEST_NAME).exists():
        raise ArtifactError(
            f"{place} is the folder of a server: give the link that it keeps, {path / JOIN_NAME}"
        )
    if path.is_file() and path.name != MANIFEST_NAME:
        return _of_server(place, connect)
    return load_bundle(path.parent if path.name == MANIFEST_NAME else path, ()).manifest


# What a place may be, the first that fits.
_PLACES = ((re.compile(r"(gkt\+)?https?://", re.IGNORECASE), _of_server), (re.compile(""), _of_folder))
