"""A device from Python: one call takes part in a run from beginning to end."""

from __future__ import annotations

import contextlib
import logging
import os
import ssl
from pathlib import Path
from typing import Any

from edge_runtime.device import Device, DeviceResult
from edge_runtime.membership import as_member
from edge_runtime.own_data import OwnData
from edge_runtime.server_client import ServerClient
from edge_runtime.state.identity import Identity, identity_of
from edge_runtime.state.packed_data import is_packed
from edge_runtime.state.state_dir import StateDir
from gkt_core.bundle.tap import TapRequirement
from gkt_core.data.pack import PackOptions
from gkt_core.data.private_data import PrivateData, load_private_data
from gkt_core.errors import ConfigError
from gkt_core.wire.addresses import is_readable_on_the_way
from gkt_core.wire.feature_noise import FeatureNoise
from gkt_core.wire.join_link import JoinLink, given_join_link
from gkt_core.wire.protocol import as_client_id, check_client_id

log = logging.getLogger("gkt.device")


class _Log:
    """A listener that writes to Python's logging, as ``gkt.device``."""

    def __init__(self, client_id: str) -> None:
        self._client_id, self._last = client_id, ("", 0, "")

    def phase(self, name: str, round_num: int, num_images: int, reason: str = "") -> None:
        """Note a phase, once."""
        if (name, round_num, reason) != self._last:
            self._last = name, round_num, reason
            log.info("%s: %s, round %d %s", self._client_id, name, round_num, reason)

    def images(self, num_images: int) -> None:
        """Say nothing."""

    def note(self, line: str) -> None:
        """Note a line."""
        log.info("%s", line)


class Client:
    """A device's part in a server's run, as ``gkt edge run`` plays it.

    ::

        result = Client(link, "client-000.npz").run()
        print(result.model)

    Args:
        join: The link into the run that ``gkt serve`` printed, or a file that holds it; by default the
            variable ``GKT_JOIN``, or none, where the state folder has enrolled before. With ``token``, the
            URL of a server.
        data: This device's file, images to make it of as ``gkt data pack`` does, or what
            :func:`gkt_core.private_data` made of arrays.
        token: One that all devices of a run of an earlier version share; goes with the next release.
        state_dir: What survives a restart, ``model.onnx`` in the end; by default ``gkt-state/NAME``.
        client_id: Name of this device; by default the state folder's, or one that is drawn.
        num_threads: CPU threads.
        engine: ``portable`` or ``ort_training``; by default the fastest that is here.
        noise: What happens to features before they leave.
        require_tap: Take part only if the features are those of this network, or of this shape (``16x8x8``).
        max_bits: Take part only if each number of them leaves in so many bits at most.
        **connection: Further arguments of :class:`edge_runtime.server_client.ServerClient`, such as
            ``ca_file``, ``proxy`` and ``patience_seconds``.

    Raises:
        ConfigError: The link, token, name or tap cannot be used.
        DatasetError: The file cannot be read.
    """

    def __init__(
        self,
        join: str | None,
        data: PrivateData | Path | str,
        *,
        token: str | None = None,
        state_dir: Path | str | None = None,
        client_id: str | None = None,
        num_threads: int = 1,
        engine: str | None = None,
        noise: FeatureNoise | None = None,
        require_tap: str | None = None,
        max_bits: int | None = None,
        **connection: Any,
    ) -> None:
        given = join or os.environ.get("GKT_JOIN") or None
        if token is not None and not given:
            raise ConfigError("token= goes with the URL of a server: give both, or a join link instead")
        self._url, self._token = given if token is not None else None, token
        self._link: JoinLink | None = None if given is None or token is not None else given_join_link(given)
        self._data: PrivateData | None = data if isinstance(data, PrivateData) else None
        self._source = "" if isinstance(data, PrivateData) else str(data)
        if self._source and is_packed(self._source):
            self._data = load_private_data(Path(self._source))
        self._stem = as_client_id(Path(self._source).stem)
        self._client_id = None if client_id is None else check_client_id(client_id)
        self._state_dir = Path("gkt-state", client_id or self._stem) if state_dir is None else Path(state_dir)
        self._num_threads, self._engine = num_threads, engine
        self._noise = noise or FeatureNoise()
        self._tap = TapRequirement(require_tap=require_tap, max_bits=max_bits)
        self._connection = {"on_retry": log.warning, **connection}
        # What is wrong with an address is said now, and not when the data are there.
        if self._url is not None or self._link is not None:
            address = self._url or (self._link.url if self._link is not None else "")
            self._wire(address, token).close()

    def run(self) -> DeviceResult:
        """Take part until the run has ended; called again after a stop, it goes on.

        Raises:
            RunFailedError: The server says that the run failed.
            GKTError: Anything else that stops this device; its state folder goes on later.
        """
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(contextlib.closing(StateDir(self._state_dir)))
            identity = identity_of(folder.path, self._client_id, self._stem)
            own = OwnData(
                identity.client_id, self._data, self._source, PackOptions(), folder.path, log.info, self._tap
            )
            server = stack.enter_context(contextlib.closing(self._connect(folder.path, identity, own)))
            data = own.private or own.fit(server.run_info())
            return Device(
                server,
                data,
                folder,
                client_id=identity.client_id,
                client_key=identity.client_key,
                num_threads=self._num_threads,
                engine=self._engine,
                noise=self._noise,
                tap=self._tap,
                listener=_Log(identity.client_id),
            ).run()

    def _connect(self, folder: Path, identity: Identity, own: OwnData) -> ServerClient:
        if self._url is None:
            return as_member(folder, identity, self._wire, log.info, link=self._link, check=own.fit)
        log.warning(
            "the shared token speaks for every device, and goes with the next release: use a join link"
        )
        return self._wire(self._url, self._token)

    def _wire(
        self, url: str, token: str | None, *, trust: ssl.SSLContext | None = None, bundle_sha256: str = ""
    ) -> ServerClient:
        if is_readable_on_the_way(url) and token is not None:
            log.warning(
                "%s is plain http to another machine: whoever is between can read and change all", url
            )
        options = {"trust": trust, "expected_manifest_sha256": bundle_sha256 or None, **self._connection}
        return ServerClient(url, token, **options)
