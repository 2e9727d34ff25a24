"""Who may do what: every operation of the OpenAPI document, with every secret that is not meant for it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from flask import Flask

from gkt_core.bundle.manifest import manifest_sha256
from gkt_core.errors import AuthenticationError, ForbiddenError, InputError, RoundError
from gkt_core.wire.credentials import (
    DEVICE,
    ENROLMENT,
    OPERATOR,
    ROTATE_HEADER,
    Bearer,
    Enrolments,
    NewCredential,
    new_secret,
    secret_sha256,
)
from gkt_core.wire.protocol import RunStatus, Task, from_json, to_json
from gkt_core.wire.shards import ShardKey
from server_app import create_app
from server_app.members.inviting import enrolled
from server_app.members.membership import change_client
from server_app.run_folder import RunContext
from server_app.web.openapi import openapi_document
from tests.conftest import LONGEST_SECONDS
from tests.server_app.server_fixtures import (
    CLIENTS,
    OPERATOR_SECRET,
    TOKEN,
    operator,
    shard_bytes,
)
from tests.server_app.web.api_fixtures import JOIN, PARTS, REPORT, Api, refused

pytest_plugins = ["tests.server_app.server_fixtures", "tests.server_app.web.api_fixtures"]

MINE, OTHER = CLIENTS
PARTS_OF_PATHS = {
    "client_id": MINE, "round_num": "1", "split": "train", "index": "0", "name": "predict.onnx",
    "part": "template", "action": "revoke", "change": "resume", "script": "a.js", "style": "a.css",
    "icon": "a.svg", "file": "service-worker.js",
}  # fmt: skip
REFUSED = {401: "AuthenticationError", 403: "ForbiddenError"}


@pytest.fixture
def closed(run: RunContext) -> Flask:
    """The application as gkt serve makes it: no token that all share."""
    return create_app(run, operator_secret=OPERATOR_SECRET, poll_seconds=0.5)


class Everybody:
    """The secrets of one run: of its two devices, which have joined, an operator and who came to nothing."""

    def __init__(self, app: Flask, run: RunContext) -> None:
        self.app, self.run = app, run
        self.bearers = {client_id: enrolled(run, client_id) for client_id in CLIENTS}
        for client_id in CLIENTS:
            assert self.api(self.bearers[client_id]).join(client_id).status_code == 200
        revoked = enrolled(run, "client-gone")
        change_client(run, "client-gone", "revoke")
        replaced = enrolled(run, "client-lost")
        run.store.credentials.end("client-lost", revoked=False)
        store = run.store.credentials
        mine = self.bearers[MINE].rpartition("~")[2]
        self.wrong = {
            "none": (None, 401),
            "no scheme": (self.bearers[MINE], 401),
            "basic": (f"Basic {self.bearers[MINE]}", 401),
            "the shared token of another time": (f"Bearer {TOKEN}", 401),
            "a secret of nobody": (f"Bearer {Bearer(DEVICE, MINE, new_secret()).text()}", 401),
            "a device that never was": (f"Bearer {Bearer(DEVICE, 'nobody', new_secret()).text()}", 401),
            "a device's secret under another's name": (f"Bearer {Bearer(DEVICE, OTHER, mine).text()}", 401),
            "a device's as an operator's": (f"Bearer {Bearer(OPERATOR, '', mine).text()}", 401),
            "an operator's as a device's": (f"Bearer {Bearer(DEVICE, MINE, OPERATOR_SECRET).text()}", 401),
            "a wrong operator's": (f"Bearer {Bearer(OPERATOR, '', new_secret()).text()}", 401),
            "a revoked one": (f"Bearer {revoked}", 401),
            "one that was ended": (f"Bearer {replaced}", 401),
            "a link of nobody": (f"Bearer {Bearer(ENROLMENT, '00112233', new_secret()).text()}", 401),
            "an expired link": (f"Bearer {store.open_enrolment(-1.0).text()}", 401),
        }
        self.link = f"Bearer {store.open_enrolment(LONGEST_SECONDS).text()}"
        self.operator = f"Bearer {operator()}"

    def forbidden(self, access: str) -> dict[str, str]:
        """Secrets that hold, and whose owner may not call an operation of this access in MINE's name."""
        device, other = (f"Bearer {self.bearers[name]}" for name in (MINE, OTHER))
        return {
            "invited": {},
            "device": {"another device": other, "an operator": self.operator, "a link": self.link},
            "member": {"a link": self.link},
            "operator": {"a device": device, "a link": self.link},
            "watcher": {"a device": device, "a link": self.link},
            "newcomer": {"another device": other, "an operator": self.operator},
        }[access]

    def allowed(self, access: str) -> dict[str, str]:
        device = f"Bearer {self.bearers[MINE]}"
        return {
            "invited": {"device": device, "operator": self.operator, "link": self.link},
            "device": {"device": device},
            "member": {"device": device, "operator": self.operator},
            "operator": {"operator": self.operator},
            "watcher": {"operator": self.operator},
            "newcomer": {"device": device, "link": self.link},
        }[access]

    def api(self, bearer: str) -> Api:
        transport = httpx.WSGITransport(app=self.app)
        headers = {"Authorization": f"Bearer {bearer}"}
        return Api(httpx.Client(transport=transport, base_url="http://server", headers=headers), self.run)

    def ask(self, verb: str, path: str, authorization: str | None) -> httpx.Response:
        headers = {} if authorization is None else {"Authorization": authorization}
        url = path.format(run_id=self.run.store.run_id, **PARTS_OF_PATHS)
        with self.app.test_client().open(url, method=verb, headers=headers, data=b"{}") as answer:
            return httpx.Response(answer.status_code, headers=dict(answer.headers), content=answer.data)


@pytest.fixture
def everybody(closed: Flask, run: RunContext) -> Everybody:
    return Everybody(closed, run)


def operations(app: Flask) -> list[tuple[str, str, dict[str, Any]]]:
    paths = openapi_document(app)["paths"]
    return [(verb.upper(), path, each) for path, verbs in paths.items() for verb, each in verbs.items()]


def test_no_operation_takes_a_secret_that_is_not_meant_for_it(everybody: Everybody, api: Api) -> None:
    before, num_asked = api.contents(), 0
    for verb, path, described in operations(everybody.app):
        access = described["x-gkt-access"]
        if access == "everybody":
            assert everybody.ask(verb, path, None).status_code in (200, 404)
            continue
        tried = {**everybody.wrong, **{n: (g, 403) for n, g in everybody.forbidden(access).items()}}
        for name, (given, status) in tried.items():
            response = everybody.ask(verb, path, given)
            assert response.status_code == status, f"{verb} {path} with {name}: {response.text}"
            body = refused(response, status, REFUSED[status])
            assert str(status) in described["responses"]
            for secret in (OPERATOR_SECRET, *everybody.bearers.values()):
                assert secret.rpartition("~")[2] not in body.message
            num_asked += 1
    assert num_asked > 200
    assert api.contents() == before


def test_and_each_takes_those_that_are(everybody: Everybody) -> None:
    for verb, path, described in operations(everybody.app):
        access = described["x-gkt-access"]
        for name, given in ({} if access == "everybody" else everybody.allowed(access)).items():
            if path.endswith("{action}"):
                continue
            status = everybody.ask(verb, path, given).status_code
            assert status not in (401, 403), f"{verb} {path} with {name}"


def test_a_route_that_the_table_forgets_is_the_operators(closed: Flask, run: RunContext) -> None:
    closed.add_url_rule("/v1/forgotten", "forgotten", lambda: "it")
    everybody = Everybody(closed, run)
    for given in (everybody.link, f"Bearer {everybody.bearers[MINE]}"):
        refused(everybody.ask("GET", "/v1/forgotten", given), 403, "ForbiddenError")
    assert everybody.ask("GET", "/v1/forgotten", everybody.operator).status_code == 200
    assert everybody.ask("GET", "/v1/forgotten", None).status_code == 401


def test_a_device_sees_no_line_of_another(everybody: Everybody) -> None:
    mine = everybody.api(everybody.bearers[MINE])
    mine.put_parts(MINE)
    assert mine.report(MINE).status_code == 200
    seen = {name: everybody.api(each).status() for name, each in everybody.bearers.items()}
    assert [client.client_id for client in seen[MINE].clients] == [MINE]
    assert (seen[MINE].reported, seen[OTHER].reported) == ([MINE], [])
    for name, each in ((MINE, OTHER), (OTHER, MINE)):
        assert each not in to_json(seen[name]).decode()
    assert seen[MINE].num_clients == 2
    whole = from_json(RunStatus, everybody.api(operator()).http.get(f"{mine.root}/status").content)
    assert [client.client_id for client in whole.clients] == list(CLIENTS)


# --- joining


def enrol(api: Api, client_id: str, secret: str, client_key: str = "") -> httpx.Response:
    message = NewCredential(secret_sha256(secret), client_key)
    return api.http.put(f"{api.root}/clients/{client_id}/credential", content=to_json(message))


def test_a_link_is_for_one_device_and_may_be_repeated_by_it(closed: Flask, run: RunContext) -> None:
    link = run.store.credentials.open_enrolment(LONGEST_SECONDS)
    guest, secret = _api(closed, run, link), new_secret()
    # An answer that was lost is asked for again.
    for _ in range(3):
        assert enrol(guest, "client-a", secret).json() == {"client_id": "client-a"}
    refused(
        enrol(guest, "client-a", new_secret()), 409, "RoundError", "belongs to another device", "re-enroll"
    )
    refused(enrol(guest, "client-b", new_secret()), 401, "AuthenticationError", "all 1 uses", "gkt enroll")
    device = _api(closed, run, Bearer(DEVICE, "client-a", secret))
    assert device.join("client-a").status_code == 200
    # The link itself joins nobody.
    refused(guest.join("client-a"), 403, "ForbiddenError", "a join link", "a device's secret")


def _api(app: Flask, run: RunContext, bearer: Bearer) -> Api:
    headers = {"Authorization": f"Bearer {bearer.text()}"}
    transport = httpx.WSGITransport(app=app)
    return Api(httpx.Client(transport=transport, base_url="http://server", headers=headers), run)


def test_a_link_with_a_number_of_uses(closed: Flask, run: RunContext) -> None:
    store = run.store.credentials
    link = store.open_enrolment(LONGEST_SECONDS, uses=2)
    guest = _api(closed, run, link)
    for client_id in CLIENTS:
        assert enrol(guest, client_id, new_secret()).status_code == 200
    refused(enrol(guest, "mallory", new_secret()), 401, "AuthenticationError", "all 2 uses")
    # Whoever is revoked does not come back under another name, nor do the seats that are free again help.
    change_client(run, CLIENTS[0], "revoke")
    refused(enrol(guest, "mallory2", new_secret()), 401, "AuthenticationError", "all 2 uses")
    refused(enrol(guest, CLIENTS[0], new_secret()), 403, "ForbiddenError", "was revoked")
    assert store.raise_uses(link.name, 3)
    assert enrol(guest, "client-c", new_secret()).status_code == 200


def test_a_link_that_has_expired(run: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    store = run.store.credentials
    link = store.open_enrolment(60.0)
    store.check_enrolment(link)
    assert store.raise_uses(link.name, 1)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 61)
    with pytest.raises(AuthenticationError, match="has expired"):
        store.check_enrolment(link)
    assert not store.raise_uses(link.name, 5)


def test_the_name_of_a_device_of_an_earlier_version_is_its_own(
    app: Flask, api: Api, closed: Flask, run: RunContext
) -> None:
    """It joined with the shared token and a key; a link, taken by another, does not take its name."""
    message = json.loads(to_json(JOIN)) | {"client_key": "its key"}
    assert api.http.put(f"{api.root}/clients/client-a", content=json.dumps(message)).status_code == 200
    guest = _api(closed, run, run.store.credentials.open_enrolment(LONGEST_SECONDS))
    for key in ("", "another key"):
        refused(enrol(guest, "client-a", new_secret(), key), 409, "RoundError", "belongs to another device")
    assert enrol(guest, "client-a", new_secret(), "its key").status_code == 200
    # The shared token speaks for it no more, for others still.
    refused(api.join("client-a", JOIN), 403, "ForbiddenError", "a secret of its own")
    assert api.join("client-b", JOIN).status_code == 200


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"secret_sha256": "ab" * 31}, ["64 hexadecimal"]),
        ({"secret_sha256": "AB" * 32}, ["64 hexadecimal"]),
        ({"secret_sha256": "ab" * 32, "client_key": "k" * 129}, ["client_key has 129"]),
        ({}, ["secret_sha256"]),
    ],
)
def test_a_bent_enrolment_uses_nothing_up(
    closed: Flask, run: RunContext, message: dict[str, str], words: list[str]
) -> None:
    guest = _api(closed, run, run.store.credentials.open_enrolment(LONGEST_SECONDS))
    path = f"{guest.root}/clients/client-a/credential"
    refused(guest.http.put(path, content=json.dumps(message)), 400, "MessageError", *words)
    assert enrol(guest, "client-a", new_secret()).status_code == 200


# --- rotation, loss, revocation


def test_a_device_replaces_its_secret_when_it_is_asked(everybody: Everybody) -> None:
    before, secret = everybody.api(everybody.bearers[MINE]), new_secret()
    assert ROTATE_HEADER not in before.http.get(before.root).headers
    everybody.run.store.credentials.ask_rotation(MINE)
    assert before.http.get(before.root).headers[ROTATE_HEADER] == "1"
    assert enrol(before, MINE, secret).status_code == 200
    refused(before.http.get(before.root), 401, "AuthenticationError", MINE, "was replaced")
    after = _api(everybody.app, everybody.run, Bearer(DEVICE, MINE, secret))
    assert ROTATE_HEADER not in after.http.get(after.root).headers
    # Repeated with the new one, as after an answer that was lost.
    assert enrol(after, MINE, secret).status_code == 200
    assert after.task(MINE).action == "train"
    for name in ("nobody", "client-gone"):
        with pytest.raises(InputError, match="has no secret"):
            everybody.run.store.credentials.ask_rotation(name)


def test_a_device_that_lost_its_folder_comes_back_and_nobody_else_does(everybody: Everybody) -> None:
    run, mine = everybody.run, everybody.api(everybody.bearers[MINE])
    mine.put_parts(MINE, parts=PARTS[:1])
    boss = everybody.api(operator())
    wanted = {"devices": 1, "seconds": 60.0, "client_id": MINE}
    made = from_json(
        Enrolments,
        boss.http.post(f"{boss.root}/operator/enrolments", content=json.dumps(wanted)).content,
    )
    assert made.bundle_sha256 == manifest_sha256(run.bundle.manifest.to_dict())
    # At once, and not when the link is used: somebody else may have the folder.
    refused(mine.http.get(mine.root), 401, "AuthenticationError", "was replaced", "re-enroll")
    (token,) = made.tokens
    guest, secret = _api(everybody.app, run, Bearer(ENROLMENT, *token.split("."))), new_secret()
    refused(enrol(guest, "mallory", new_secret()), 403, "ForbiddenError", f"for {MINE} alone")
    assert enrol(guest, MINE, secret, "a key of the new folder").status_code == 200
    device = _api(everybody.app, run, Bearer(DEVICE, MINE, secret))
    message = json.loads(to_json(JOIN)) | {"client_key": "a key of the new folder"}
    joined = device.http.put(f"{device.root}/clients/{MINE}", content=json.dumps(message))
    assert from_json(Task, joined.content).action == "train"
    # What it had sent was made with weights that are lost.
    assert run.store.shards(1, MINE) == []
    boss.http.post(f"{boss.root}/operator/clients/{MINE}/revoke")
    refused(device.http.get(device.root), 401, "AuthenticationError", "was revoked")
    answer = boss.http.post(f"{boss.root}/operator/enrolments", content=json.dumps(wanted))
    refused(answer, 422, "InputError", "was revoked")


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"devices": 0, "seconds": 60.0}, "1 to 10000"),
        ({"devices": 10_001, "seconds": 60.0}, "1 to 10000"),
        ({"devices": 1, "seconds": 0.0}, "1 to"),
        ({"devices": 1, "seconds": 1e300}, "1 to"),
        ({"devices": 2, "seconds": 60.0, "client_id": MINE}, "is one device"),
        ({"devices": 1, "seconds": 60.0, "client_id": "who"}, "no device 'who'"),
    ],
)
def test_links_that_are_not_given_out(everybody: Everybody, wanted: dict[str, Any], words: str) -> None:
    boss = everybody.api(operator())
    answer = boss.http.post(f"{boss.root}/operator/enrolments", content=json.dumps(wanted))
    refused(answer, 422, "InputError", words)


def test_what_operators_change(everybody: Everybody) -> None:
    boss = everybody.api(operator())

    def change(client_id: str, action: str) -> httpx.Response:
        return boss.http.post(f"{boss.root}/operator/clients/{client_id}/{action}")

    assert change(MINE, "rotate").json() == {"client_id": MINE, "state": "training", "notes": []}
    refused(change(MINE, "release"), 422, "InputError", "not quarantined")
    refused(change("who", "revoke"), 422, "InputError", "no device 'who'")
    refused(change(MINE, "promote"), 404, "NotFound", "expected one of revoke")
    for _ in range(2):
        assert change(MINE, "revoke").json() == {"client_id": MINE, "state": "revoked", "notes": []}
    # One that has enrolled and not joined yet.
    enrolled(everybody.run, "client-c")
    assert change("client-c", "revoke").json()["state"] == "revoked"


REVOKED_MEANWHILE: dict[str, Callable[[Api], httpx.Response]] = {
    "a shard": lambda api: api.put_shard(
        ShardKey(MINE, 1, "train", 0), shard_bytes(ShardKey(MINE, 1, "train", 0), 8)
    ),
    "a shard that is known": lambda api: api.put_shard(
        ShardKey(MINE, 1, "train", 1), shard_bytes(ShardKey(MINE, 1, "train", 1), 4, first_id=8)
    ),
    "a report": lambda api: api.report(MINE, 1, REPORT),
    "joining": lambda api: api.join(MINE),
}


@pytest.mark.parametrize("what", REVOKED_MEANWHILE)
def test_revocation_in_the_middle_of_a_request(everybody: Everybody, what: str) -> None:
    run, api = everybody.run, everybody.api(everybody.bearers[MINE])
    api.put_parts(MINE, parts=PARTS[1:])
    assert len(run.store.shards(1, MINE)) == 2

    def then_revoked() -> None:
        change_client(run, MINE, "revoke")

    # As soon as the request is let in, before its body is read.
    before_requests = everybody.app.before_request_funcs[None]
    before_requests.append(then_revoked)
    refused(REVOKED_MEANWHILE[what](api), 401, "AuthenticationError", f"{MINE} was revoked")
    before_requests.remove(then_revoked)
    # What it had sent before goes with it, and nothing comes in its place.
    assert run.store.shards(1, MINE) == []
    refused(api.http.get(api.root), 401, "AuthenticationError", "was revoked")


def test_secrets_are_kept_as_hashes(everybody: Everybody, run: RunContext) -> None:
    files = [path for path in run.folder.rglob("*") if path.is_file()]
    assert files
    secrets = [each.rpartition("~")[2].encode() for each in (*everybody.bearers.values(), everybody.link)]
    for path in files:
        kept = path.read_bytes()
        assert not any(secret in kept for secret in secrets), path


def test_errors_of_the_store(run: RunContext) -> None:
    store = run.store.credentials
    link = store.open_enrolment(LONGEST_SECONDS, client_id="client-a")
    with pytest.raises(ForbiddenError, match="for client-a alone"):
        store.enrol(link, "client-b", secret_sha256("s"), "")
    with pytest.raises(AuthenticationError, match="not its own any more"):
        store.replace("client-a", "s", secret_sha256("t"))
    with pytest.raises(RoundError, match="belongs to another device"):
        enrolled(run, "client-c")
        enrolled(run, "client-c")
