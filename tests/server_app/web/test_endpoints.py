"""The endpoints as a whole: their table, a run through all of them, who may ask, and joining."""

import dataclasses
import re
from typing import Any

import httpx
import pytest
from flask import Flask, Response, request

from edge_runtime.server_client import ServerClient
from gkt_core.bundle.manifest import DEVICE_FILES
from gkt_core.errors import GKTError
from gkt_core.wire import protocol
from gkt_core.wire.protocol import (
    PROTOCOL_VERSION,
    MissingShards,
    RunInfo,
    RunList,
    Task,
    from_json,
    to_json,
)
from gkt_core.wire.shards import ShardKey
from server_app import RunContext
from server_app.members.inviting import enrolled
from server_app.overview import messages
from server_app.page import messages as page_messages
from server_app.web.operations import OPERATIONS
from server_app.web.routes import joining
from tests.server_app.server_fixtures import CLIENTS, TOKEN, operator, shard_bytes
from tests.server_app.web.api_fixtures import (
    JOIN,
    PARTS,
    REPORT,
    WEIGHTS,
    Api,
    refused,
    soft_label_bytes,
)

# --- the table of endpoints


def table() -> list[tuple[str, str]]:
    """``[(verb, path)]`` of the drawings in the docstrings of the messages and pages."""
    drawn = f"{protocol.__doc__}\n{messages.__doc__}\n{page_messages.__doc__}\n{joining.__doc__}"
    return re.findall(r"^(GET|PUT|POST) +(/\S*)", drawn, flags=re.MULTILINE)


# Not of the run that is served.
APART = (
    "/v1/openapi.json", "/docs", "/join", "/join/{file}", "/v1/infer", "/v1/authority", "/metrics",
    "/", "/page/scripts/{script}", "/page/styles/{style}", "/page/icons/{icon}", "/v1/page",
    *(path for _, path in table() if "/operator/" in path or path.endswith(("/credential", "/extractor"))),
)  # fmt: skip
WITHOUT_TOKEN = (
    "/v1/health",
    "/v1/health/live",
    "/healthz",
    "/readyz",
    "/v1/openapi.json",
    "/docs",
    "/join",
    "/join/{file}",
    "/v1/authority",
    "/",
)
# Nor does what the page loads.
OF_THE_PAGE = ("/page/scripts/{script}", "/page/styles/{style}", "/page/icons/{icon}")


def rule_of(app: Flask, verb: str, path: str) -> str:
    filled = re.sub(r"\{\w+\}", "1", path)
    return app.url_map.bind("server").match(filled, verb, return_rule=True)[0].rule


def test_the_table_of_endpoints_is_the_applications(app: Flask) -> None:
    assert len(table()) >= 12
    documented = {(verb, rule_of(app, verb, path)) for verb, path in table()}
    built = {
        (verb, rule.rule)
        for rule in app.url_map.iter_rules()
        for verb in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert documented == built


def test_a_whole_run_through_every_endpoint(app: Flask, run: RunContext) -> None:
    called: set[tuple[str, str, int]] = set()

    @app.after_request
    def remember(response: Response) -> Response:
        assert request.url_rule is not None
        called.add((request.method, request.url_rule.rule, response.status_code))
        return response

    transport = httpx.WSGITransport(app=app)
    devices = {client_id: ServerClient("http://server", TOKEN, transport=transport) for client_id in CLIENTS}
    with httpx.Client(transport=transport, base_url="http://server") as http:
        for path in ("/v1/health", "/v1/health/live", "/healthz", "/readyz"):
            assert http.get(path).json() == {"status": "ok"}
    for client_id, device in devices.items():
        info = device.run_info()
        assert info.config == run.config.told()
        assert info.manifest == run.bundle.manifest.to_dict()
        assert device.join(client_id, JOIN).action == ("wait" if client_id == CLIENTS[0] else "train")
        for name in DEVICE_FILES:
            assert device.artifact(name) == run.bundle.file(name).read_bytes()
    server = Api(httpx.Client(transport=transport), run)
    for round_num in (1, 2):
        for client_id, device in devices.items():
            assert device.task(client_id).action == "train"
            assert device.missing_shards(client_id, round_num) == MissingShards([0, 1], [0])
            for split, index, num, first_id in PARTS:
                key = ShardKey(client_id, round_num, split, index)
                data = shard_bytes(key, num, first_id=first_id)
                receipt = device.put_shard(key, data, compressed=index == 0)
                assert (receipt.num_samples, receipt.already_stored) == (num, False)
            assert device.report(client_id, round_num, REPORT).action == "wait"
        server.train(round_num)
        for client_id, device in devices.items():
            assert device.soft_labels(client_id, round_num) == soft_label_bytes(client_id, round_num)
    for client_id, device in devices.items():
        assert device.task(client_id).action == "finish"
        assert device.model_template() == b"the template"
    with httpx.Client(transport=transport, headers={"Authorization": f"Bearer {TOKEN}"}) as http:
        weights = http.get(f"http://server/v1/runs/{run.store.run_id}/model/server")
    assert weights.content == WEIGHTS
    status = devices["client-a"].status()
    assert (status.phase, status.traffic["download/model"]) == ("finished", 2 * 12 + 11)
    assert list(devices["client-a"].rounds()) == status.finished_rounds
    # Without inference, credentials, extractors and the interface, which have tests of their own.
    expected = {(verb, rule_of(app, verb, path), 200) for verb, path in table() if path not in APART}
    assert called == expected
    for device in devices.values():
        device.close()


def test_messages_that_say_what_the_run_is(api: Api) -> None:
    assert from_json(RunList, api.http.get("/v1/runs").content) == RunList(1, [api.run.store.run_id])
    info = from_json(RunInfo, api.http.get(api.root).content)
    assert (info.protocol_version, info.run_id) == (PROTOCOL_VERSION, api.run.store.run_id)


# --- who may ask


PATHS = [
    (verb, path.replace("{round}", "1").replace("{n}", "0"))
    for verb, path in table()
    if path not in (*WITHOUT_TOKEN, *OF_THE_PAGE)
]


@pytest.mark.parametrize(
    "given",
    [None, "", TOKEN, f"Basic {TOKEN}", "Bearer", "Bearer ", f"Bearer {TOKEN}x", "Bearer \xfcber"],
    ids=["missing", "empty", "no scheme", "other scheme", "no token", "blank", "wrong", "not ASCII"],
)
def test_a_request_without_the_token_is_refused(app: Flask, api: Api, given: Any) -> None:
    before = api.contents()
    headers = {} if given is None else {"Authorization": given}
    for verb, path in PATHS:
        url = path.replace("{run}", api.run.store.run_id)
        # Flask's own client: httpx would not send every one of these headers.
        with app.test_client().open(url, method=verb, headers=headers) as answer:
            response = httpx.Response(answer.status_code, headers=dict(answer.headers), content=answer.data)
        body = refused(response, 401, "AuthenticationError", "bearer token")
        assert TOKEN not in body.message
    assert api.contents() == before


def test_nothing_else_needs_no_token(app: Flask) -> None:
    public = {name for name, operation in OPERATIONS.items() if not operation.needs_token}
    assert public == {
        "runs.health", "runs.live", "watching.healthz", "watching.readyz", "runs.authority",
        "documents.openapi", "documents.page", "page.index", "page.script", "page.style", "page.icon",
        "joining.page", "joining.file",
    }  # fmt: skip
    for path in WITHOUT_TOKEN:
        # No authority of its own: a server for tests is on this machine.
        url = path.replace("{file}", "service-worker.js")
        assert app.test_client().get(url).status_code == (404 if path == "/v1/authority" else 200)


def test_another_run_is_not_found(api: Api) -> None:
    for verb, path in PATHS:
        if "{run}" in path:
            url = path.replace("{run}", "run-000000000000").replace("{split}", "train")
            url = url.replace("{client}", "client-a")
            shows = {"Authorization": f"Bearer {operator()}"} if "/operator/" in path else None
            if path.endswith("/credential"):
                url = url.replace("client-a", "client-x")
                shows = {"Authorization": f"Bearer {enrolled(api.run, 'client-x')}"}
            response = api.http.request(
                verb, url, content=to_json(JOIN) if verb == "PUT" else None, headers=shows
            )
            refused(response, 404, "NotFound", "no run 'run-000000000000'")


@pytest.mark.parametrize(
    ("verb", "path", "status", "error"),
    [
        ("GET", "/index.html", 404, "NotFound"),
        ("GET", "/page/scripts/page.js", 404, "NotFound"),
        ("GET", "/v2/health", 404, "NotFound"),
        ("GET", "/static/app.py", 404, "NotFound"),
        ("DELETE", "/v1/runs", 405, "MethodNotAllowed"),
        ("POST", "/v1/health", 405, "MethodNotAllowed"),
        ("GET", "{root}/clients/client-a", 405, "MethodNotAllowed"),
        ("GET", "{root}/rounds/1/clients/client-a/shards/train/0", 405, "MethodNotAllowed"),
        ("PUT", "{root}/rounds/-1/clients/client-a/report", 404, "NotFound"),
        ("PUT", "{root}/rounds/one/clients/client-a/report", 404, "NotFound"),
        ("PUT", "{root}/rounds/1/clients/client-a/shards/train/-1", 404, "NotFound"),
        ("PUT", "{root}/clients/a%2Fb", 404, "NotFound"),
    ],
)
def test_errors_of_the_interface_itself_are_json(
    api: Api, verb: str, path: str, status: int, error: str
) -> None:
    refused(api.http.request(verb, path.format(root=api.root)), status, error)


@pytest.mark.parametrize(
    ("raised", "error"), [(RuntimeError("secret"), "InternalServerError"), (GKTError("no"), "GKTError")]
)
def test_an_error_of_the_server_is_json_too(
    api: Api, monkeypatch: pytest.MonkeyPatch, raised: Exception, error: str
) -> None:
    def fail() -> None:
        raise raised

    monkeypatch.setattr(api.run.store, "state", fail)
    body = refused(api.http.get(f"{api.root}/status"), 500, error)
    assert "secret" not in body.message


# --- joining


def test_a_device_joins_and_may_repeat_it(api: Api) -> None:
    first = api.join("client-a")
    before = api.contents()
    again = api.join("client-a")
    assert first.content == again.content
    assert api.contents() == before
    task = from_json(Task, first.content)
    assert (task.action, task.retry_after_seconds) == ("wait", 0.5)
    assert from_json(Task, api.join("client-b").content).action == "train"
    assert from_json(Task, api.join("client-a").content).action == "train"


@pytest.mark.parametrize(
    ("changes", "status", "error", "words"),
    [
        ({"protocol_version": 2}, 400, "ProtocolVersionError", ["version 2, this one 1", "install"]),
        ({"num_classes": 10}, 422, "ArtifactError", ["10 classes", "made for 3", "--num-classes 10"]),
        ({"num_examples": 1}, 400, "MessageError", ["1 training", "at least 2 and 1"]),
        ({"num_examples": -5}, 400, "MessageError", ["-5 training"]),
        ({"num_validation_examples": 0}, 400, "MessageError", ["0 validation"]),
    ],
)
def test_a_device_that_does_not_fit_cannot_join(
    api: Api, changes: Any, status: int, error: str, words: list[str]
) -> None:
    before = api.contents()
    response = api.join("client-a", dataclasses.replace(JOIN, **changes))
    refused(response, status, error, *words)
    assert api.contents() == before


@pytest.mark.parametrize("client_id", ["-a", ".a", "a b", "a" * 65, "%C3%A4", "%00", "a%0Ab", "%5C"])
def test_a_client_id_must_be_a_file_name_everywhere(api: Api, client_id: str) -> None:
    before = api.contents()
    refused(api.join(client_id), 400, "MessageError", "client id", "1 to 64")
    assert api.contents() == before


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b"\xff", to_json(JOIN)[:-1], b'{"protocol_version": NaN}']
)
def test_a_join_that_is_no_message(api: Api, body: bytes) -> None:
    before = api.contents()
    response = api.http.put(f"{api.root}/clients/client-a", content=body)
    refused(response, 400, "MessageError", "JoinRequest")
    assert api.contents() == before


def test_a_full_run_takes_no_further_device(joined: Api) -> None:
    before = joined.contents()
    refused(joined.join("client-c"), 409, "RoundError", "client-c cannot join", "all 2 devices")
    assert joined.contents() == before


def test_a_stranger_has_no_task(joined: Api) -> None:
    response = joined.http.get(f"{joined.root}/clients/client-c/task")
    refused(response, 409, "RoundError", "client-c has not joined")
