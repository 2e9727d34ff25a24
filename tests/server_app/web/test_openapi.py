"""The OpenAPI document is valid, complete, and what the application really does."""

import dataclasses
import json
import re
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from flask import Flask
from openapi_spec_validator import validate

from edge_runtime.server_client import ServerClient
from gkt_core.rounds.shared_extractor import read_extractor, write_extractor
from gkt_core.wire.credentials import DEVICE, Bearer, NewCredential, new_secret, secret_sha256
from gkt_core.wire.online_features import write_features
from gkt_core.wire.protocol import SHA256_HEADER, to_json
from gkt_core.wire.shards import ShardKey
from server_app import RunContext, create_app
from server_app.members.inviting import enrolled
from server_app.page.files import page_files
from server_app.run_folder import mean_extractor_blob
from server_app.store import put_with_hash
from server_app.web.classifier import FeatureClassifier
from server_app.web.openapi import openapi_document
from server_app.web.operations import OPERATIONS
from tests.server_app.server_fixtures import (
    CLIENTS,
    FEATURE_SHAPE,
    OPERATOR_SECRET,
    TOKEN,
    operator,
    shard_bytes,
)
from tests.server_app.web.api_fixtures import JOIN, PARTS, REPORT, Api
from tests.server_app.web.documented import CheckedTransport, Documented

AUTHORITY = ssl.DER_cert_to_PEM_cert(b"a certificate").encode()


@pytest.fixture
def app(run: RunContext, deployed: Path) -> Flask:
    classifier = FeatureClassifier(deployed)
    return create_app(run, TOKEN, operator_secret=OPERATOR_SECRET, authority=AUTHORITY, classifier=classifier)


@pytest.fixture
def documented(app: Flask) -> Documented:
    return Documented(app)


@pytest.fixture
def checked(app: Flask, run: RunContext, documented: Documented) -> Iterator[Api]:
    """An API whose every answer is held against the document."""
    with httpx.Client(
        transport=CheckedTransport(app, documented),
        base_url="http://server",
        headers={"Authorization": f"Bearer {TOKEN}"},
    ) as http:
        yield Api(http, run)


def test_the_document_is_valid_openapi(app: Flask) -> None:
    document = openapi_document(app)
    validate(document)
    assert document["openapi"].startswith("3.1.")
    names = [operation["operationId"] for verbs in document["paths"].values() for operation in verbs.values()]
    assert len(names) == len(set(names))


def test_every_route_is_documented_and_nothing_else(app: Flask, documented: Documented) -> None:
    assert set(OPERATIONS) == {rule.endpoint for rule in app.url_map.iter_rules()}
    routes = {
        (verb.lower(), re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        for verb in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert documented.operations() == routes
    for verbs in documented.document["paths"].values():
        for operation in verbs.values():
            assert operation["summary"], operation["operationId"]


def test_a_route_that_is_not_in_the_table_is_noticed(app: Flask) -> None:
    app.add_url_rule("/v1/new", "new", lambda: "")
    with pytest.raises(KeyError, match="new"):
        openapi_document(app)


def test_every_documented_operation_answers_as_documented(
    app: Flask, checked: Api, documented: Documented, run: RunContext
) -> None:
    """A whole run, every answer of which is checked: status, media type, body."""
    everybodys = (
        "/v1/health",
        "/v1/health/live",
        "/healthz",
        "/readyz",
        "/v1/authority",
        "/docs",
        "/",
        "/join",
    )
    files = page_files()
    parts = {"scripts": files.scripts, "styles": files.styles, "icons": files.icons}
    of_the_page = ["/join/service-worker.js"]
    of_the_page += [f"/page/{kind}/{name}" for kind, names in parts.items() for name in names]
    for path in (*everybodys, *of_the_page, "/v1/openapi.json"):
        assert checked.http.get(path, headers={"Authorization": ""}).status_code == 200
    served = checked.http.get("/v1/openapi.json").json()
    assert served == documented.document
    transport = CheckedTransport(app, documented)
    boss, secret = f"Bearer {operator()}", new_secret()
    checked.http.post(
        f"{checked.root}/operator/enrolments",
        json={"devices": 1, "seconds": 60.0},
        headers={"Authorization": boss},
    )
    bearers = {name: enrolled(run, name) for name in CLIENTS}
    drawn = NewCredential(secret_sha256(secret))
    answer = checked.http.put(
        f"{checked.root}/clients/{CLIENTS[0]}/credential",
        content=to_json(drawn),
        headers={"Authorization": f"Bearer {bearers[CLIENTS[0]]}"},
    )
    assert answer.status_code == 200
    bearers[CLIENTS[0]] = Bearer(DEVICE, CLIENTS[0], secret).text()
    devices = {
        name: ServerClient("http://server", each, transport=transport) for name, each in bearers.items()
    }
    for client_id, device in devices.items():
        device.run_info()
        device.join(client_id, JOIN)
        device.artifact("initial_state.safetensors")
    for change in ("pause", "resume"):
        changed = checked.http.post(
            f"{checked.root}/operator/run/{change}", json={"reason": ""}, headers={"Authorization": boss}
        )
        assert changed.status_code == 200
    for round_num in range(1, run.config.rounds + 1):
        for client_id, device in devices.items():
            device.task(client_id)
            device.missing_shards(client_id, round_num)
            for split, index, num, first_id in PARTS:
                key = ShardKey(client_id, round_num, split, index)
                device.put_shard(key, shard_bytes(key, num, first_id=first_id), compressed=index == 0)
            device.report(client_id, round_num, REPORT)
            device.status()
        checked.train(round_num)
        for client_id, device in devices.items():
            device.soft_labels(client_id, round_num)
    # What the trainer makes in a run that shares extractors.
    spec = run.extractor_spec
    zeros = spec.tensors(np.zeros(spec.num_values, np.float32))
    put_with_hash(run.blobs, mean_extractor_blob(2), write_extractor(spec, zeros, "", 2))
    assert read_extractor(devices[CLIENTS[0]].extractor(2), spec, "", 2).keys() == zeros.keys()
    assert [each.round_num for each in devices[CLIENTS[0]].rounds(after=1)] == [2]
    devices[CLIENTS[0]].model_template()
    rotate = f"{checked.root}/operator/clients/{CLIENTS[0]}/rotate"
    assert checked.http.post(rotate, headers={"Authorization": boss}).status_code == 200
    listed = checked.http.get(f"{checked.root}/operator/clients", headers={"Authorization": boss})
    assert {row["client_id"] for row in listed.json()["clients"]} >= {*CLIENTS}
    for path in ("/metrics", "/v1/page", f"{checked.root}/operator/overview"):
        assert checked.http.get(path, headers={"Authorization": boss}).status_code == 200
    assert checked.http.get(f"{checked.root}/model/server").status_code == 200
    features = write_features(np.zeros((2, *FEATURE_SHAPE), np.float32))
    assert len(checked.http.post("/v1/infer", content=features).json()["labels"]) == 2
    for device in devices.values():
        device.close()
    called = {(verb, path) for verb, path, status in documented.called if status == 200}
    assert called == documented.operations()


def test_refusals_are_documented_too(
    checked: Api, documented: Documented, run: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, part = checked.root, f"{checked.root}/rounds/1/clients/client-a"
    shard = shard_bytes(ShardKey("client-a", 1, "train", 0), 8)
    missing = [
        ("GET", "/v1/runs/other"),
        ("GET", "/v1/runs/other/status"),
        ("GET", f"{root}/artifacts/other"),
        ("GET", f"{root}/model/other"),
        ("GET", "/v1/runs/other/clients/client-a/task"),
        ("GET", "/v1/runs/other/rounds/1/clients/client-a/shards"),
    ]
    for verb, path in missing:
        assert checked.http.request(verb, path).status_code == 404
    assert checked.http.get(f"{root}/model/template").status_code == 409
    assert checked.http.get(f"{part}/shards").status_code == 409
    assert checked.http.get(f"{part}/soft-labels").status_code == 409
    assert checked.http.get(f"{root}/clients/stranger/task").status_code == 409
    assert checked.join("client-a", dataclasses.replace(JOIN, num_classes=7)).status_code == 422
    assert checked.put(shard).status_code == 409
    for client_id in CLIENTS:
        assert checked.join(client_id).status_code == 200
    assert checked.put(shard[:-1]).status_code == 400
    assert checked.http.put(f"{part}/shards/train/0", content=shard).status_code == 400
    assert checked.put(bytes(run.shard_spec.max_bytes + (1 << 20))).status_code == 413
    assert checked.http.post("/v1/infer", content=shard).status_code == 400
    assert checked.http.post("/v1/infer", content=bytes(8 << 20)).status_code == 413
    assert checked.report(report=b"{}").status_code == 400
    assert checked.report().status_code == 409
    assert checked.http.get(f"{part}/soft-labels").status_code == 404
    for path in (f"{root}/status", "/v1/runs", root, f"{part}/shards", f"{root}/clients/client-a/task"):
        assert checked.http.get(path, headers={"Authorization": "Bearer x"}).status_code == 401

    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(run.store), "state", full)
    assert checked.http.get(f"{root}/status").status_code == 503
    assert {status for _, _, status in documented.called} >= {400, 401, 404, 409, 413, 422, 503}


@pytest.mark.parametrize("message", [JOIN, REPORT], ids=lambda message: type(message).__name__)
def test_schemas_of_bodies_say_what_the_server_takes(
    checked: Api, documented: Documented, message: Any
) -> None:
    """What the schema refuses is refused, and what it allows is at least understood."""
    for client_id in CLIENTS:
        assert checked.join(client_id).status_code == 200
    path = f"{checked.root}/" + (
        "clients/client-a" if message is JOIN else "rounds/1/clients/client-a/report"
    )
    _, operation = documented.known("PUT", path)
    schema = documented.schema(operation["requestBody"]["content"]["application/json"]["schema"])
    good = json.loads(to_json(message))
    bent = [{**good, "unknown": 1}, [good], {}]
    for name, value in good.items():
        bent.append({key: each for key, each in good.items() if key != name})
        bent += [{**good, name: wrong} for wrong in (None, [value], {"a": value}, True)]
        bent.append({**good, name: 0.5 if isinstance(value, int) else "x"})
    num_refused = 0
    for body in bent:
        is_valid = schema.is_valid(body)
        answer = checked.http.put(path, content=json.dumps(body).encode())
        understood = "expected" not in answer.text and "missing fields" not in answer.text
        if not is_valid:
            num_refused += 1
            assert answer.status_code == 400, body
            assert answer.json()["error"] == "MessageError", body
        else:
            assert answer.status_code in (200, 409) or understood, (body, answer.text)
    assert num_refused > 4 * len(good) and schema.is_valid(good)


def test_the_page_says_everything_and_loads_nothing(app: Flask, documented: Documented) -> None:
    answer = app.test_client().get("/docs")
    assert answer.status_code == 200 and answer.mimetype == "text/html"
    page = answer.get_data(as_text=True)
    for verb, path in documented.operations():
        assert f"{verb.upper()}</span> <code>{path}</code>" in page
    for name in documented.document["components"]["schemas"]:
        assert f'id="{name}"' in page
    assert not re.search(r"https?:|//\w|\bsrc=|<script|<link|@import|url\(", page)
    # Every link leads to a place on the page, or to the document.
    targets = set(re.findall(r'href="([^"]+)"', page))
    assert targets - {"v1/openapi.json"} <= {f"#{name}" for name in re.findall(r'id="([^"]+)"', page)}


def test_headers_and_the_token(documented: Documented) -> None:
    _, operation = documented.known("PUT", "/v1/runs/a/rounds/1/clients/b/shards/train/0")
    headers = {each["name"]: each["required"] for each in operation["parameters"] if each["in"] == "header"}
    assert headers == {SHA256_HEADER: True, "Content-Encoding": False}
    assert documented.document["security"] == [{"bearer": []}]
    assert documented.known("GET", "/v1/health")[1]["security"] == []
