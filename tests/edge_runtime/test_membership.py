"""A device enrols with a link, once, and is known by its own secret: over real sockets, plain and TLS."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import socket
import ssl
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from flask import Flask, Response, request

from edge_runtime.connection.authority import checked_authority, pinned
from edge_runtime.membership import as_guest, as_member
from edge_runtime.server_client import ServerClient
from edge_runtime.state.credential import keep_credential, kept_credential
from edge_runtime.state.identity import Identity
from gkt_core.errors import (
    ArtifactError,
    AuthenticationError,
    ConfigError,
    RoundError,
    ServerUnavailableError,
)
from gkt_core.wire.join_link import JoinLink
from gkt_core.wire.protocol import SHA256_HEADER
from gkt_core.wire.shards import ShardKey
from server_app import RunContext, create_app
from server_app.members.inviting import kept_link, moved_link, serve_link
from server_app.members.membership import authority_sha256, bundle_sha256, change_client
from server_app.own_certificate import OwnCertificate, names_of_this_machine, own_certificate
from server_app.serving import bind
from server_app.web.gunicorn_server import WebServer
from tests.conftest import LONGEST_SECONDS
from tests.server_app.server_fixtures import shard_bytes
from tests.server_app.waiting import until
from tests.server_app.web.api_fixtures import JOIN

pytest_plugins = ["tests.server_app.server_fixtures", "tests.server_app.web.api_fixtures"]

WHO = Identity("client-a", "its key")
Say = list[str]


def wire(
    url: str, token: str | None, *, trust: ssl.SSLContext | None = None, bundle_sha256: str = ""
) -> ServerClient:
    return ServerClient(
        url, token, trust=trust, expected_manifest_sha256=bundle_sha256 or None, patience_seconds=0
    )


@contextlib.contextmanager
def served(app: Flask, own: OwnCertificate | None = None) -> Iterator[str]:
    listener = bind("127.0.0.1", 0)
    server = WebServer(app, listener, tls=None if own is None else own.files)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        scheme = "http" if own is None else "https"
        yield f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.stop()
        thread.join(LONGEST_SECONDS)
        assert not thread.is_alive()


@pytest.fixture
def app(run: RunContext) -> Flask:
    return create_app(run)


@pytest.fixture
def url(app: Flask) -> Iterator[str]:
    with served(app) as address:
        yield address


@pytest.fixture(scope="session")
def own(tmp_path_factory: pytest.TempPathFactory) -> OwnCertificate:
    return own_certificate(tmp_path_factory.mktemp("own"), names_of_this_machine())


def link_to(run: RunContext, url: str, authority: bytes = b"", client_id: str = "") -> JoinLink:
    made = run.store.credentials.open_enrolment(LONGEST_SECONDS, client_id=client_id)
    return JoinLink(url, made.name, made.secret, bundle_sha256(run), authority_sha256(authority))


def member(
    folder: Path, link: JoinLink | None, lines: Say | None = None, url: str | None = None
) -> ServerClient:
    lines = [] if lines is None else lines
    return as_member(folder, WHO, wire, lines.append, link=link, url=url)


def test_a_device_enrols_once_and_needs_the_link_no_more(run: RunContext, url: str, tmp_path: Path) -> None:
    link, lines = link_to(run, url), Say()
    with contextlib.closing(member(tmp_path, link, lines)) as server:
        server.run_info()
        assert server.join("client-a", JOIN).action == "wait"
    assert [line for line in lines if "is enrolled" in line] == lines
    path = tmp_path / "credential.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    kept = kept_credential(tmp_path)
    assert kept is not None and kept.is_enrolled and kept.secret not in repr(kept)
    assert link.secret not in path.read_text(), "what is used up need not be kept"
    # Without the link, with it, and with another one, which is not used up.
    another = link_to(run, url)
    for given in (None, link, another):
        with contextlib.closing(member(tmp_path, given, lines)) as server:
            server.run_info()
            assert server.task("client-a").action == "wait"
    assert kept_credential(tmp_path) == kept and len(lines) == 1
    with contextlib.closing(as_member(tmp_path / "b", Identity("b", ""), wire, lines.append, link=another)):
        assert len(lines) == 2


def test_a_dry_look_uses_nothing_up(run: RunContext, url: str, tmp_path: Path) -> None:
    link = link_to(run, url)
    for _ in range(2):
        with contextlib.closing(as_guest(link, wire)) as server:
            assert server.run_info().run_id == run.store.run_id
            assert server.artifact("initial_state.safetensors")
    with contextlib.closing(member(tmp_path, link)) as server:
        server.run_info()


def test_what_a_device_is_told_when_it_is_not_let_in(run: RunContext, url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"does not belong to a run yet: give --join LINK"):
        member(tmp_path, None)
    nobody = dataclasses.replace(link_to(run, url), secret="x" * 43)
    with pytest.raises(AuthenticationError, match="none of this run: ask whoever runs the server"):
        member(tmp_path, nobody)
    member(tmp_path, link_to(run, url)).close()
    with pytest.raises(RoundError, match="belongs to another device"):
        member(tmp_path / "other", link_to(run, url))
    # A bundle that somebody changed is refused before a use is spent.
    changed = dataclasses.replace(link_to(run, url), bundle_sha256="0" * 64)
    with pytest.raises(ArtifactError, match="is not the one that was agreed upon"):
        as_member(tmp_path / "c", Identity("c", ""), wire, Say().append, link=changed)
    assert set(run.store.credentials.devices()) == {"client-a"}
    (tmp_path / "credential.json").write_text("{}")
    with pytest.raises(ArtifactError, match="re-enroll"):
        member(tmp_path, None)


def test_a_folder_of_another_run_spends_no_link(run: RunContext, url: str, tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(json.dumps({"run_id": "run-of-yore", "client_id": "client-a"}))
    with pytest.raises(ArtifactError, match="belongs to run-of-yore"):
        member(tmp_path, link_to(run, url))
    assert run.store.credentials.devices() == {}


def drop_answers(app: Flask, to: Callable[[], bool], num: int = 1) -> list[str]:
    """Lose answers after the server has done what they say."""
    lost: list[str] = []

    def lose(response: Response) -> Response:
        if to() and len(lost) < num:
            lost.append(request.path)
            return Response("gone", 502)
        return response

    app.after_request_funcs.setdefault(None, []).insert(0, lose)
    return lost


def test_an_answer_to_enrolling_that_is_lost(app: Flask, run: RunContext, url: str, tmp_path: Path) -> None:
    link = link_to(run, url)
    lost = drop_answers(app, lambda: request.path.endswith("/credential"))
    with pytest.raises(ServerUnavailableError):
        member(tmp_path, link)
    assert len(lost) == 1
    # The server knows the device; the device, started again, finds out.
    with pytest.raises(ConfigError, match="does not belong to a run yet"):
        member(tmp_path, None)
    member(tmp_path, link).close()
    member(tmp_path, None).close()


def test_a_device_draws_another_secret_when_the_operator_wants_it(
    run: RunContext, url: str, tmp_path: Path
) -> None:
    lines = Say()
    with contextlib.closing(member(tmp_path, link_to(run, url), lines)) as server:
        server.run_info()
        before = kept_credential(tmp_path)
        run.store.credentials.ask_rotation("client-a")
        server.join("client-a", JOIN)
        after = kept_credential(tmp_path)
        assert before is not None and after is not None
        assert before.secret != after.secret and not after.next_secret
        assert "has drawn another secret" in lines[-1]
        assert server.task("client-a").action == "wait"
        assert not run.store.credentials.devices()["client-a"].rotates
    assert before.secret not in " ".join(lines) and after.secret not in " ".join(lines)
    keep_credential(tmp_path, before)
    with contextlib.closing(member(tmp_path, None)) as server, pytest.raises(AuthenticationError):
        server.run_info()


@pytest.mark.parametrize("is_lost_at", ["request", "answer"])
def test_a_rotation_that_is_interrupted_is_finished_at_the_next_start(
    app: Flask, run: RunContext, url: str, tmp_path: Path, is_lost_at: str
) -> None:
    with contextlib.closing(member(tmp_path, link_to(run, url))) as server:
        server.run_info()
        run.store.credentials.ask_rotation("client-a")
        if is_lost_at == "answer":
            drop_answers(app, lambda: request.path.endswith("/credential"))
        else:

            def lose() -> Response | None:
                return Response("gone", 502) if request.path.endswith("/credential") else None

            app.before_request_funcs[None].insert(0, lose)
        with pytest.raises(ServerUnavailableError):
            server.join("client-a", JOIN)
    if is_lost_at == "request":
        app.before_request_funcs[None].pop(0)
    kept = kept_credential(tmp_path)
    assert kept is not None and kept.next_secret
    with contextlib.closing(member(tmp_path, None)) as server:
        server.run_info()
    after = kept_credential(tmp_path)
    assert after is not None and (after.secret, after.next_secret) == (kept.next_secret, "")


def test_a_link_that_enrols_again_ends_what_was(run: RunContext, url: str, tmp_path: Path) -> None:
    member(tmp_path, link_to(run, url)).close()
    run.store.credentials.end("client-a", revoked=False)
    with contextlib.closing(member(tmp_path, None)) as server, pytest.raises(AuthenticationError):
        server.run_info()
    again = link_to(run, url, client_id="client-a")
    # Both the folder that is still there and one that is new.
    for folder in (tmp_path, tmp_path / "new"):
        with contextlib.closing(member(folder, again)) as server:
            server.run_info()
        run.store.credentials.end("client-a", revoked=False)
        again = link_to(run, url, client_id="client-a")


# --- TLS with an authority of the server's own


def test_a_device_trusts_the_authority_of_its_link_and_no_other(
    run: RunContext, own: OwnCertificate, tmp_path: Path
) -> None:
    app = create_app(run, authority=own.authority)
    with served(app, own) as url:
        link = link_to(run, url, own.authority)
        with contextlib.closing(member(tmp_path / "a", link)) as server:
            server.run_info()
            assert server.join("client-a", JOIN).action == "wait"
        # By another name too, as the authority signs for one server alone.
        moved = url.replace("127.0.0.1", "localhost")
        with contextlib.closing(member(tmp_path / "a", None, url=moved)) as server:
            server.run_info()
        # Public authorities do not know it.
        strict = ServerClient(url, "token", patience_seconds=0)
        with contextlib.closing(strict), pytest.raises(ServerUnavailableError, match="join with the link"):
            strict.run_info()


def test_who_stands_between_hears_nothing(
    run: RunContext, own: OwnCertificate, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """With an authority of its own, or with the true one's certificate and no key of it."""
    other = own_certificate(tmp_path_factory.mktemp("other"), ["127.0.0.1"])
    heard: list[tuple[str, str | None]] = []
    for says in (other.authority, own.authority):
        between = Flask("between")

        @between.route("/<path:path>", methods=["GET", "PUT"])
        def answer(path: str, says: bytes = says) -> Response:
            heard.append((path, request.headers.get("Authorization")))
            return Response(says, mimetype="application/x-pem-file")

        with served(between, other) as url:
            link = link_to(run, url, own.authority)
            if says == other.authority:
                with pytest.raises(AuthenticationError, match="is not the server of the link"):
                    member(tmp_path / "first", link)
            else:
                with pytest.raises(ServerUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
                    member(tmp_path / "second", link)
    assert heard == [("v1/authority", None), ("v1/authority", None)]


@pytest.mark.parametrize("said", [b"", b"text", b"\xff", b"-----BEGIN CERTIFICATE-----\n"])
def test_what_is_no_authority(said: bytes) -> None:
    with pytest.raises(AuthenticationError, match="no certificate"):
        checked_authority("https://server", said, hashlib.sha256(b"").hexdigest())


def test_a_certificate_is_kept_and_renewed(tmp_path: Path) -> None:
    first = own_certificate(tmp_path, ["127.0.0.1", "server"])
    for name in ("authority.pem", "authority.key", "server.pem", "server.key"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    before = first.certificate.read_bytes()
    assert own_certificate(tmp_path, ["server"]).certificate.read_bytes() == before
    # Another address: signed anew, by the same authority.
    again = own_certificate(tmp_path, ["server", "10.0.0.7"])
    assert again.certificate.read_bytes() != before and again.authority == first.authority


def test_a_certificate_is_reloaded_without_a_restart(
    app: Flask, run: RunContext, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = own_certificate(tmp_path, ["127.0.0.1"])
    with served(app, own) as url:

        def shown() -> str:
            port = int(url.rpartition(":")[2])
            return ssl.get_server_certificate(("127.0.0.1", port), timeout=LONGEST_SECONDS)

        first = shown()
        assert own.certificate.read_text().startswith(first.strip())
        renewed = own_certificate(tmp_path, ["127.0.0.1", "10.0.0.8"])
        second = shown()
        assert second != first and renewed.certificate.read_text().startswith(second.strip())
        # Half of a pair, or nothing at all: what was is shown.
        renewed.key.write_text("in the middle of being written")
        assert shown() == second
        assert "the certificate stays the one before" in caplog.text
        renewed.certificate.unlink()
        assert shown() == second


# --- the link that gkt serve prints


def test_the_link_of_a_server_is_the_same_at_every_start(run: RunContext) -> None:
    (run.folder / "blobs").mkdir(exist_ok=True)
    first = serve_link(run, "http://127.0.0.1:1")
    assert stat.S_IMODE((run.folder / "join").stat().st_mode) == 0o600
    moved = serve_link(run, "http://127.0.0.1:2")
    assert dataclasses.replace(moved, url=first.url) == first
    assert kept_link(run.folder) == moved
    assert httpx.URL(moved_link(run.folder, "http://127.0.0.1:3").partition("#")[0]).port == 3
    run.store.credentials.check_enrolment(first.bearer)
    (run.folder / "join").write_text("something else")
    assert kept_link(run.folder) is None
    assert serve_link(run, "http://127.0.0.1:1").enrolment != first.enrolment
    (run.folder / "join").unlink()
    with pytest.raises(ConfigError, match="holds no join link"):
        moved_link(run.folder, "http://127.0.0.1:3")


def test_a_device_that_is_revoked_in_the_middle_of_an_upload(
    run: RunContext, own: OwnCertificate, tmp_path: Path
) -> None:
    """Over TLS: half of a shard has arrived when its device is revoked; the other half changes nothing."""
    app = create_app(run, authority=own.authority)
    with served(app, own) as url:
        with contextlib.closing(member(tmp_path, link_to(run, url, own.authority))) as server:
            run_id = server.run_info().run_id
            server.join("client-a", JOIN)
        other = as_member(
            tmp_path / "b",
            Identity("client-b", ""),
            wire,
            Say().append,
            link=link_to(run, url, own.authority),
        )
        with contextlib.closing(other):
            other.run_info()
            other.join("client-b", JOIN)
        kept, key = kept_credential(tmp_path), ShardKey("client-a", 1, "train", 0)
        assert kept is not None
        body = shard_bytes(key, 8)
        head = (
            f"PUT /v1/runs/{run_id}/rounds/1/clients/client-a/shards/train/0 HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {kept.bearer('client-a')}\r\nContent-Length: {len(body)}\r\n"
            f"{SHA256_HEADER}: {hashlib.sha256(body).hexdigest()}\r\n\r\n"
        )
        port = int(url.rpartition(":")[2])
        plain = socket.create_connection(("127.0.0.1", port), LONGEST_SECONDS)
        with pinned(own.authority.decode()).wrap_socket(plain) as peer:
            peer.sendall(head.encode() + body[: len(body) // 2])
            # It is let in and being received, as its file shows.
            until(lambda: any((run.folder / "blobs").rglob("*")), "the upload has begun")
            change_client(run, "client-a", "revoke")
            peer.sendall(body[len(body) // 2 :])
            assert b" 401 " in peer.recv(65536).partition(b"\r\n")[0]
    assert run.store.shards(1, "client-a") == []
