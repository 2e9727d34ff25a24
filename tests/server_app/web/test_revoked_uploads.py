"""A secret that ends in the middle of an upload: the transfer ends at once, over real sockets."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from gkt_core.wire.credentials import new_secret, read_bearer, secret_sha256
from gkt_core.wire.protocol import SHA256_HEADER, to_json
from server_app import create_app
from server_app.members.inviting import enrolled
from server_app.members.membership import change_client
from server_app.run_folder import RunContext
from server_app.store.folder import INCOMING
from tests.conftest import LONGEST_SECONDS
from tests.server_app.server_fixtures import CLIENTS, OPERATOR_SECRET
from tests.server_app.waiting import until
from tests.server_app.web.api_fixtures import JOIN, Api
from tests.server_app.web.test_hostile_peers import Files, connect, ended
from tests.server_app.web.test_web_server import serving

MINE, OTHER = CLIENTS
# Less than the largest shard, of which more would be refused at once.
SIZE = 60_000


@pytest.fixture
def port(run: RunContext, tls: Files | None) -> Iterator[int]:
    with serving(create_app(run, operator_secret=OPERATOR_SECRET), tls=tls) as port:
        yield port


def begin(
    port: int, tls: Files | None, run: RunContext, client_id: str, bearer: str, size: int
) -> socket.socket:
    """A connection that has sent the head of a shard, and a little of its body."""
    peer = connect(port, tls)
    path = f"/v1/runs/{run.store.run_id}/rounds/1/clients/{client_id}/shards/train/0"
    head = f"PUT {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {bearer}\r\n"
    peer.sendall(
        f"{head}{SHA256_HEADER}: {'0' * 64}\r\nContent-Length: {size}\r\n\r\n".encode() + bytes(1000)
    )
    return peer


def join(port: int, tls: Files | None, run: RunContext, client_id: str) -> str:
    bearer = enrolled(run, client_id)
    body = to_json(JOIN)
    path = f"/v1/runs/{run.store.run_id}/clients/{client_id}"
    with connect(port, tls) as peer:
        head = f"PUT {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {bearer}\r\nConnection: close\r\n"
        peer.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        assert b" 200 OK" in ended(peer)
    return bearer


def arriving(run: RunContext, num: int) -> bool:
    folder = run.folder / "blobs" / INCOMING
    return folder.is_dir() and len([path for path in folder.iterdir() if path.is_file()]) == num


@pytest.mark.parametrize("trickles", [False, True], ids=["silent", "trickling"])
@pytest.mark.parametrize("action", ["revoke", "re-enroll", "rotate"])
def test_its_transfer_is_cut_at_once(
    run: RunContext, port: int, tls: Files | None, trickles: bool, action: str
) -> None:
    bearers = {client_id: join(port, tls, run, client_id) for client_id in CLIENTS}
    with (
        begin(port, tls, run, MINE, bearers[MINE], SIZE) as mine,
        begin(port, tls, run, OTHER, bearers[OTHER], 1004) as other,
    ):
        until(lambda: arriving(run, 2), "both uploads arrive")
        if action == "revoke":
            change_client(run, MINE, "revoke")
        elif action == "rotate":
            # Its operator asks for another secret, and the device draws one: who has the old one is another.
            change_client(run, MINE, "rotate")
            known = read_bearer(bearers[MINE])
            assert known is not None
            run.store.credentials.replace(MINE, known.secret, secret_sha256(new_secret()))
        else:
            run.store.credentials.end(MINE, revoked=False)
        said, sent = b"", 1000
        if trickles:
            mine.settimeout(0.05)
        while not said:
            with contextlib.suppress(TimeoutError):
                said = mine.recv(65536)
            if trickles and not said:
                mine.sendall(b"x")
                sent += 1
        mine.settimeout(LONGEST_SECONDS)
        said += ended(mine)
        # Long before its end, and before the silence of thirty seconds that ends any upload.
        assert said.startswith(b"HTTP/1.1 401 ") and b"Connection: close" in said, said
        assert (b"was revoked" if action == "revoke" else b"was replaced") in said
        assert sent < SIZE - 1000
        until(lambda: arriving(run, 1), "what came of it is removed")
        # The other goes on: it is refused for its content, once it is whole.
        other.sendall(b"1234")
        assert other.recv(65536).startswith(b"HTTP/1.1 400 ")
    assert run.store.shards(1) == []


def test_nobody_watches_where_nothing_arrives(
    run: RunContext, port: int, tls: Files | None, api: Api
) -> None:
    bearer = join(port, tls, run, MINE)

    def watchers() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "transfers"]

    with begin(port, tls, run, MINE, bearer, SIZE):
        until(watchers, "the watch")
    until(lambda: not watchers(), "its end")
