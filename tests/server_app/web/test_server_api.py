"""The server's HTTP interface: every endpoint, and every refusal, which changes nothing."""

import dataclasses
import hashlib
import json
import re
import sqlite3

import httpx
import numpy as np
import pytest
from flask import request
from safetensors import numpy as safetensors
from sqlalchemy.exc import OperationalError

from edge_runtime.server_client import ServerClient
from gkt_core.bundle.manifest import COMBINED_TEMPLATE, DEVICE_FILES, NOMINAL_CHECKPOINT, load_bundle
from gkt_core.errors import ConfigError, GKTError, InputError
from gkt_core.rounds.learning_rate import learning_rate_scale
from gkt_core.wire import protocol
from gkt_core.wire.compression import compress
from gkt_core.wire.protocol import (
    PROTOCOL_VERSION,
    SHA256_HEADER,
    ErrorBody,
    MissingShards,
    RunInfo,
    RunList,
    ShardReceipt,
    Task,
    TrainerProgress,
    from_json,
    to_json,
)
from gkt_core.wire.shards import ShardKey
from server_app import create_app, create_run, open_run
from server_app.rounds.state import Claimed, DeadlinePassed, Failed, Revoked, Trained
from server_app.web.operations import OPERATIONS
from tests.server_app.server_fixtures import CLIENTS, TOKEN, run_config, shard_bytes
from tests.server_app.web.api_fixtures import (
    JOIN,
    METRICS,
    NUM_TRAIN,
    PARTS,
    REPORT,
    Api,
    soft_label_bytes,
)

pytest_plugins = ["tests.server_app.server_fixtures", "tests.server_app.web.api_fixtures"]


def refused(response, status, error, *words):
    """Whether this is an error with this status, and all the words in its message."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = from_json(ErrorBody, response.content)
    assert body.error == error
    assert body.message and all(word in body.message for word in words), body.message
    return body


# --- the table of endpoints


def table():
    """``[(verb, path)]`` of the drawing in the protocol's docstring."""
    return re.findall(r"^(GET|PUT|POST) +(/\S+)", protocol.__doc__, flags=re.MULTILINE)


# Not of the run that is served.
APART = ("/v1/openapi.json", "/docs", "/v1/infer")
WITHOUT_TOKEN = ("/v1/health", "/v1/openapi.json", "/docs")


def rule_of(app, verb, path):
    filled = re.sub(r"\{\w+\}", "1", path)
    return app.url_map.bind("server").match(filled, verb, return_rule=True)[0].rule


def test_the_table_of_endpoints_is_the_applications(app):
    assert len(table()) >= 12
    documented = {(verb, rule_of(app, verb, path)) for verb, path in table()}
    built = {
        (verb, rule.rule) for rule in app.url_map.iter_rules() for verb in rule.methods - {"HEAD", "OPTIONS"}
    }
    assert documented == built


def test_a_whole_run_through_every_endpoint(app, run):
    called = set()

    @app.after_request
    def remember(response):
        called.add((request.method, request.url_rule.rule, response.status_code))
        return response

    transport = httpx.WSGITransport(app=app)
    devices = {client_id: ServerClient("http://server", TOKEN, transport=transport) for client_id in CLIENTS}
    with httpx.Client(transport=transport, base_url="http://server") as http:
        assert http.get("/v1/health").json() == {"status": "ok"}
    for client_id, device in devices.items():
        info = device.run_info()
        assert info.config == run.config.to_dict()
        assert info.manifest == run.bundle.manifest.to_dict()
        assert device.join(client_id, JOIN).action == ("wait" if client_id == CLIENTS[0] else "train")
        for name in DEVICE_FILES:
            assert device.artifact(name) == run.bundle.file(name).read_bytes()
    server = Api(None, run)
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
    assert weights.content == b"the weights"
    status = devices["client-a"].status()
    assert (status.phase, status.traffic["download/model"]) == ("finished", 2 * 12 + 11)
    # Without inference and the document of the interface, which have tests of their own.
    expected = {(verb, rule_of(app, verb, path), 200) for verb, path in table() if path not in APART}
    assert called == expected
    for device in devices.values():
        device.close()


def test_messages_that_say_what_the_run_is(api):
    assert from_json(RunList, api.http.get("/v1/runs").content) == RunList(1, [api.run.store.run_id])
    info = from_json(RunInfo, api.http.get(api.root).content)
    assert (info.protocol_version, info.run_id) == (PROTOCOL_VERSION, api.run.store.run_id)


# --- who may ask


PATHS = [
    (verb, path.replace("{round}", "1").replace("{n}", "0"))
    for verb, path in table()
    if path not in WITHOUT_TOKEN
]


@pytest.mark.parametrize(
    "given",
    [None, "", TOKEN, f"Basic {TOKEN}", "Bearer", "Bearer ", f"Bearer {TOKEN}x", "Bearer \xfcber"],
    ids=["missing", "empty", "no scheme", "other scheme", "no token", "blank", "wrong", "not ASCII"],
)
def test_a_request_without_the_token_is_refused(app, api, given):
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


def test_nothing_else_needs_no_token(app):
    public = {name for name, operation in OPERATIONS.items() if not operation.needs_token}
    assert public == {"runs.health", "documents.openapi", "documents.page"}
    for path in WITHOUT_TOKEN:
        assert app.test_client().get(path).status_code == 200


def test_another_run_is_not_found(api):
    for verb, path in PATHS:
        if "{run}" in path:
            url = path.replace("{run}", "run-000000000000").replace("{split}", "train")
            response = api.http.request(verb, url, content=to_json(JOIN) if verb == "PUT" else None)
            refused(response, 404, "NotFound", "no run 'run-000000000000'")


@pytest.mark.parametrize(
    ("verb", "path", "status", "error"),
    [
        ("GET", "/", 404, "NotFound"),
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
def test_errors_of_the_interface_itself_are_json(api, verb, path, status, error):
    refused(api.http.request(verb, path.format(root=api.root)), status, error)


@pytest.mark.parametrize(
    ("raised", "error"), [(RuntimeError("secret"), "InternalServerError"), (GKTError("no"), "GKTError")]
)
def test_an_error_of_the_server_is_json_too(api, monkeypatch, raised, error):
    def fail():
        raise raised

    monkeypatch.setattr(api.run.store, "state", fail)
    body = refused(api.http.get(f"{api.root}/status"), 500, error)
    assert "secret" not in body.message


# --- joining


def test_a_device_joins_and_may_repeat_it(api):
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
def test_a_device_that_does_not_fit_cannot_join(api, changes, status, error, words):
    before = api.contents()
    response = api.join("client-a", dataclasses.replace(JOIN, **changes))
    refused(response, status, error, *words)
    assert api.contents() == before


@pytest.mark.parametrize("client_id", ["-a", ".a", "a b", "a" * 65, "%C3%A4", "%00", "a%0Ab", "%5C"])
def test_a_client_id_must_be_a_file_name_everywhere(api, client_id):
    before = api.contents()
    refused(api.join(client_id), 400, "MessageError", "client id", "1 to 64")
    assert api.contents() == before


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b"\xff", to_json(JOIN)[:-1], b'{"protocol_version": NaN}']
)
def test_a_join_that_is_no_message(api, body):
    before = api.contents()
    response = api.http.put(f"{api.root}/clients/client-a", content=body)
    refused(response, 400, "MessageError", "JoinRequest")
    assert api.contents() == before


def test_a_full_run_takes_no_further_device(joined):
    before = joined.contents()
    refused(joined.join("client-c"), 409, "RoundError", "client-c cannot join", "all 2 devices")
    assert joined.contents() == before


def test_a_stranger_has_no_task(joined):
    response = joined.http.get(f"{joined.root}/clients/client-c/task")
    refused(response, 409, "RoundError", "client-c has not joined")


# --- shards


KEY = ShardKey("client-a", 1, "train", 0)


def test_a_shard_is_kept_as_it_was_sent(joined):
    data = shard_bytes(KEY, 8)
    response = joined.put_shard(KEY, data)
    assert from_json(ShardReceipt, response.content) == ShardReceipt(8, len(data), already_stored=False)
    (record,) = joined.run.store.shards(1)
    assert (record.key, record.num_samples, record.upload_bytes) == (KEY, 8, len(data))
    assert joined.run.blobs.local_path(record.blob).read_bytes() == data
    assert joined.run.store.traffic() == {("upload/shards", 1): len(data)}


def test_a_compressed_shard_is_kept_decompressed_and_counted_as_it_travelled(joined):
    data = shard_bytes(KEY, 8)
    body = compress(data)
    assert joined.put_shard(KEY, body, Content_Encoding="zstd").status_code == 200
    (record,) = joined.run.store.shards(1)
    assert record.sha256 == hashlib.sha256(body).hexdigest()
    assert joined.run.blobs.local_path(record.blob).read_bytes() == data
    assert joined.run.store.traffic() == {("upload/shards", 1): len(body)}


def test_an_equal_shard_may_come_again_at_any_time(joined):
    def again():
        before = joined.contents()
        receipt = from_json(ShardReceipt, joined.put_shard(KEY, shard_bytes(KEY, 8)).content)
        assert receipt == ShardReceipt(8, len(shard_bytes(KEY, 8)), already_stored=True)
        assert joined.contents() == before

    joined.put_parts("client-a")
    again()
    joined.report("client-a")
    again()
    joined.put_parts("client-b")
    joined.report("client-b")
    again()
    joined.train()
    again()
    assert joined.run.store.traffic()["upload/shards", 1] == 4 * len(shard_bytes(KEY, 8)) + sum(
        shard.upload_bytes for shard in joined.run.store.shards(1)
    )


def test_a_shard_with_new_content_replaces_the_one_before(joined):
    joined.put_shard(KEY, shard_bytes(KEY, 8, seed=1))
    data = shard_bytes(KEY, 7, seed=2)
    assert from_json(ShardReceipt, joined.put_shard(KEY, data).content).already_stored is False
    (record,) = joined.run.store.shards(1)
    assert (record.num_samples, joined.run.blobs.local_path(record.blob).read_bytes()) == (7, data)


def test_new_content_after_the_report_is_refused(joined):
    joined.put_parts("client-a")
    joined.report("client-a")
    before = joined.contents()
    response = joined.put_shard(KEY, shard_bytes(KEY, 8, seed=9))
    refused(response, 409, "RoundError", "client-a has closed its part of round 1")
    assert joined.contents() == before


def changed_shard(codec="uint8", drop=(), **changes):
    """A shard of 8 samples, of which some tensors differ from what the run expects."""
    data = shard_bytes(KEY, 8, codec=codec)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    tensors = safetensors.load(data) | changes
    kept = {name: value for name, value in tensors.items() if name not in drop}
    return safetensors.save(kept, metadata=header["__metadata__"])


def repeated(first, *rest):
    return np.array([first, *rest] + [0] * (7 - len(rest)))


GOOD = shard_bytes(KEY, 8)
BAD_SHARDS = {
    "NaN scale": (changed_shard(features_scale=np.full(16, np.nan, np.float32)), "NaN"),
    "negative scale": (changed_shard(features_scale=np.full(16, -1, np.float32)), "not positive"),
    "infinite offset": (changed_shard(features_offset=np.full(16, np.inf, np.float32)), "infinity"),
    "NaN logits": (
        changed_shard(client_logits=np.full((8, 3), np.nan, np.float32)),
        "client_logits hold NaN",
    ),
    "image too narrow": (changed_shard(features=np.zeros((8, 16, 8, 6), np.uint8)), "[8, 16, 8, 8]"),
    "other dtype": (changed_shard(features=np.zeros((8, 16, 8, 8), np.float32)), "float32"),
    "other codec": (shard_bytes(KEY, 8, codec="fp16"), "codec 'fp16', expected 'uint8'"),
    "four classes": (changed_shard(client_logits=np.zeros((8, 4), np.float32)), "[8, 4]"),
    "label too large": (changed_shard(labels=repeated(3)), "labels hold 3"),
    "label below 0": (changed_shard(labels=repeated(-1)), "labels hold -1"),
    "fewer labels": (changed_shard(labels=np.zeros(7, np.int64)), "[7]"),
    "no labels": (changed_shard(drop=["labels"]), "labels"),
    "one tensor more": (changed_shard(extra=np.zeros(1, np.float32)), "extra"),
    "ids twice": (changed_shard(sample_ids=np.zeros(8, np.int64)), "not unique"),
    "too many samples": (shard_bytes(KEY, 9), "9 samples, expected 1 to 8"),
    "another device's": (shard_bytes(dataclasses.replace(KEY, client_id="client-b"), 8), "client-b"),
    "another round's": (shard_bytes(dataclasses.replace(KEY, round_num=2), 8), "round_num '2'"),
    "another split's": (shard_bytes(dataclasses.replace(KEY, split="validation"), 8), "validation"),
    "another index": (shard_bytes(dataclasses.replace(KEY, index=1), 8), "index '1'"),
    "empty": (b"", "0 bytes is cut short"),
    "cut short": (GOOD[:-1], "outside"),
    "bytes behind": (GOOD + b"\0", "header names"),
    "pickle": (b"\x80\x04\x95" + GOOD, "header"),
    "compressed, and not said": (compress(GOOD), "header"),
}


@pytest.mark.parametrize("name", BAD_SHARDS)
def test_a_shard_that_the_run_does_not_expect(joined, name):
    body, word = BAD_SHARDS[name]
    before = joined.contents()
    refused(joined.put(body), 400, "ShardError", word)
    assert joined.contents() == before


def test_features_that_are_not_finite_are_refused_for_floats_too(server_bundle, tmp_path):
    run = create_run(tmp_path / "floats", server_bundle, run_config(codec="fp32", num_clients=1), TOKEN)
    app = create_app(run, TOKEN)
    features = np.zeros((8, 16, 8, 8), np.float32)
    features[7, 15, 7, 7] = np.nan
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(
        transport=httpx.WSGITransport(app=app), base_url="http://server", headers=headers
    ) as http:
        api = Api(http, run)
        api.join("client-a")
        before = api.contents()
        refused(api.put(changed_shard("fp32", features=features)), 400, "ShardError", "features hold NaN")
        assert api.contents() == before
        assert api.put(changed_shard("fp32")).status_code == 200
    run.store.close()


ZEROS = compress(bytes(50_000_000))
ENCODED = {
    "bomb": (ZEROS, "zstd", "decompresses to more than"),
    "cut short": (compress(GOOD)[:-5], "zstd", "cut short"),
    "nothing": (b"", "zstd", "cut short"),
    "no frame": (GOOD, "zstd", "no Zstandard frame"),
    "bytes behind": (compress(GOOD) + b"x", "zstd", "1 bytes follow"),
    "two frames": (compress(GOOD) * 2, "zstd", "bytes follow"),
    "gzip": (GOOD, "gzip", "'gzip', expected zstd"),
    "several": (compress(GOOD), "gzip, zstd", "'gzip, zstd'"),
}


@pytest.mark.parametrize("name", ENCODED)
def test_a_body_that_is_not_encoded_as_it_says(joined, name):
    body, encoding, word = ENCODED[name]
    assert len(ZEROS) < 10_000
    before = joined.contents()
    refused(joined.put(body, Content_Encoding=encoding), 400, "ShardError", word)
    assert joined.contents() == before


@pytest.mark.parametrize("given", ["", "0" * 64, "nonsense", hashlib.sha256(GOOD[:-1]).hexdigest()])
def test_a_body_that_is_not_what_its_hash_says(joined, given):
    before = joined.contents()
    response = joined.put(GOOD, **{SHA256_HEADER: given})
    refused(response, 400, "ChecksumError", hashlib.sha256(GOOD).hexdigest(), "send it again")
    assert joined.contents() == before


def test_a_hash_is_needed_and_its_case_does_not_matter(joined):
    path = f"{joined.root}/rounds/1/clients/client-a/shards/train/0"
    refused(joined.http.put(path, content=GOOD), 400, "ShardError", SHA256_HEADER)
    upper = {SHA256_HEADER: hashlib.sha256(GOOD).hexdigest().upper()}
    assert joined.http.put(path, content=GOOD, headers=upper).status_code == 200


@pytest.mark.parametrize(
    ("path", "status", "error", "word"),
    [
        ("rounds/2/clients/client-a/shards/train/0", 409, "RoundError", "round 2 is not open"),
        ("rounds/0/clients/client-a/shards/train/0", 409, "RoundError", "round 0 is not open"),
        (f"rounds/{10**30}/clients/client-a/shards/train/0", 409, "RoundError", "is not open"),
        (f"rounds/{'9' * 5000}/clients/client-a/shards/train/0", 404, "NotFound", "not found"),
        ("rounds/1/clients/client-c/shards/train/0", 409, "RoundError", "client-c has not joined"),
        ("rounds/1/clients/client-a/shards/test/0", 400, "ShardError", "'test', expected one of train"),
        ("rounds/1/clients/client-a/shards/train/2", 400, "ShardError", "an index below 2"),
        ("rounds/1/clients/client-a/shards/validation/1", 400, "ShardError", "an index below 1"),
        (f"rounds/1/clients/client-a/shards/train/{10**30}", 400, "ShardError", "an index below 2"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_shard_that_belongs_nowhere(joined, path, status, error, word):
    before = joined.contents()
    refused(joined.put(GOOD, path), status, error, word)
    assert joined.contents() == before


def test_nobody_uploads_before_the_round_is_open(api):
    before = api.contents()
    refused(api.put(GOOD), 409, "RoundError", "client-a has not joined")
    assert api.contents() == before
    api.join("client-a")
    before = api.contents()
    refused(api.put(GOOD), 409, "RoundError", "round 1 is not open: the run is joining")
    assert api.contents() == before


def test_a_body_that_no_shard_can_have(joined):
    limit = joined.run.shard_spec.max_bytes + 64 * 1024
    before = joined.contents()
    refused(joined.put(bytes(limit + 1)), 413, "RequestEntityTooLarge", str(limit))
    refused(joined.put(bytes(limit)), 400, "ShardError")
    assert joined.contents() == before


# --- what is missing, and what is too late


def missing(api, client_id="client-a", round_num=1):
    return api.http.get(f"{api.root}/rounds/{round_num}/clients/{client_id}/shards")


def test_a_device_that_lost_its_link_learns_what_is_missing(joined):
    def still_missing():
        return from_json(MissingShards, missing(joined).content)

    assert still_missing() == MissingShards([0, 1], [0])
    joined.put_parts("client-a", parts=(PARTS[1],))
    assert still_missing() == MissingShards([0], [0])
    joined.put_parts("client-a", parts=(PARTS[0], PARTS[2]))
    assert still_missing() == MissingShards([], [])
    joined.report()
    assert still_missing() == MissingShards([], [])
    refused(missing(joined, round_num=2), 409, "RoundError", "round 2 is not open")
    refused(missing(joined, "client-c"), 409, "RoundError", "has not joined")


def test_what_is_missing_of_very_many(api):
    api.join("client-a", dataclasses.replace(JOIN, num_examples=10**12))
    api.join("client-b")
    found = from_json(MissingShards, missing(api).content)
    assert found == MissingShards(list(range(protocol.MAX_MISSING_SHARDS)), [0])


def test_a_device_that_is_too_late_learns_so_and_takes_part_again(joined):
    joined.put_parts("client-a", parts=PARTS[:2])
    joined.put_parts("client-b")
    joined.report("client-b")
    joined.run.store.apply(DeadlinePassed(1))
    before = joined.contents()
    late = joined.put_shard(ShardKey("client-a", 1, "validation", 0), GOOD)
    refused(late, 409, "RoundClosedError", "round 1 is not open: the run is ready")
    refused(missing(joined), 409, "RoundClosedError")
    task = from_json(Task, joined.report().content)
    assert (task.action, task.soft_labels_round) == ("wait", 0)
    assert joined.contents() == before
    joined.train()
    task = joined.task("client-a")
    assert (task.action, task.round_num, task.soft_labels_round) == ("train", 2, 0)
    assert joined.task("client-b").soft_labels_round == 1
    assert [metrics.num_examples for metrics in joined.status().finished_rounds] == [NUM_TRAIN]


def test_a_revoked_device_is_told_so(joined):
    joined.run.store.apply(Revoked("client-a"))
    assert joined.task("client-a").action == "stop"
    refused(joined.put(GOOD), 409, "RoundError", "client-a was revoked")
    refused(joined.join("client-a"), 409, "RoundError", "client-a was revoked")
    assert (joined.status().revoked, joined.status().selected) == (["client-a"], ["client-b"])


def test_devices_are_told_the_learning_rate_of_the_round(server_bundle, tmp_path):
    config = run_config(rounds=3, lr_schedule="cosine", plateau_patience=1)
    run = create_run(tmp_path / "run", server_bundle, config, TOKEN)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    transport = httpx.WSGITransport(app=create_app(run, TOKEN))
    with httpx.Client(transport=transport, base_url="http://server", headers=headers) as http:
        api = Api(http, run)
        for client_id in CLIENTS:
            api.join(client_id)
        found = []
        for round_num in (1, 2, 3):
            found.append(api.task("client-a").learning_rate_scale)
            api.collect(round_num)
            assert api.task("client-a").learning_rate_scale == 1.0, "nothing to train"
            api.train(round_num)
    accuracy = METRICS["validation_accuracy"]
    expected = [learning_rate_scale(config, each, [accuracy] * (each - 1)) for each in (1, 2, 3)]
    assert found == expected and found[0] == 1 and found[2] < 0.5 * found[1] < 0.5
    run.store.close()


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        OperationalError("UPDATE runs", {}, sqlite3.OperationalError("database is locked")),
    ],
)
def test_a_storage_that_does_not_answer_asks_for_patience(joined, monkeypatch, caplog, error):
    before = joined.contents()

    def fail(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(
            joined.run.blobs if isinstance(error, OSError) else joined.run.store, WRITES[type(error)], fail
        )
        response = joined.put(GOOD)
    body = refused(response, 503, "StorageUnavailableError", "ask again later")
    assert "UPDATE" not in body.message and int(response.headers["Retry-After"]) > 0
    assert "the storage does not answer" in caplog.text
    assert joined.contents()[0] == before[0]
    assert joined.put(GOOD).status_code == 200


WRITES = {OSError: "put_file", OperationalError: "add_shard"}


# --- reports


def test_a_report_closes_a_devices_part_once(joined):
    joined.put_parts("client-a")
    task = from_json(Task, joined.report().content)
    assert (task.action, task.reason) == ("wait", "1 of 2 devices have reported")
    before = joined.contents()
    other = dataclasses.replace(REPORT, loss=99.0)
    assert from_json(Task, joined.report(report=other).content) == task
    assert joined.contents() == before
    joined.put_parts("client-b")
    assert from_json(Task, joined.report("client-b").content).reason == "the server trains on round 1"
    joined.train()
    task = from_json(Task, joined.report().content)
    assert (task.action, task.round_num, task.soft_labels_round) == ("train", 2, 1)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ((), ["client-a: train shards [0, 1] of 2 have not arrived"]),
        (PARTS[1:], ["train shards [0] of 2"]),
        (PARTS[:2], ["validation shards [0] of 1"]),
        ((PARTS[0], ("train", 1, 3, 8), PARTS[2]), ["11 train samples arrived, it announced 12"]),
    ],
)
def test_a_report_before_everything_has_arrived(joined, parts, words):
    joined.put_parts("client-a", parts=parts)
    before = joined.contents()
    refused(joined.report(), 409, "RoundError", *words)
    assert joined.contents() == before
    joined.put_parts("client-a")
    assert joined.report().status_code == 200


def test_a_sample_in_two_shards(joined):
    joined.put_parts("client-a", parts=(PARTS[0], ("train", 1, 4, 7), PARTS[2]))
    before = joined.contents()
    refused(joined.report(), 400, "ShardError", "a train sample is in two shards of round 1")
    assert joined.contents() == before


@pytest.mark.parametrize(
    ("changes", "status", "error", "words"),
    [
        ({"num_train_shards": 1}, 409, "RoundError", ["2 train shards arrived, it reports 1"]),
        ({"num_train_shards": 3}, 409, "RoundError", ["train shards [2] of 3"]),
        ({"num_train_shards": -1}, 409, "RoundError", ["it reports -1"]),
        ({"num_train_shards": 2**62}, 409, "RoundError", ["[2, 3, 4, 5, 6, 7, 8, 9, 10, 11]"]),
        ({"num_validation_shards": 0}, 409, "RoundError", ["1 validation shards arrived, it reports 0"]),
        ({"num_examples": 13}, 400, "MessageError", ["reports 13 training samples, it announced 12"]),
        ({"num_examples": -12}, 400, "MessageError", ["reports -12"]),
        ({"loss": -1.0}, 400, "MessageError", ["negative"]),
        ({"accuracy": -0.5}, 400, "MessageError", ["negative"]),
        ({"train_seconds": -0.5}, 400, "MessageError", ["negative"]),
        ({"images_per_second": -8.0}, 400, "MessageError", ["negative"]),
        ({"images_per_second": 1e308}, 400, "MessageError", ["far too large"]),
    ],
)
def test_a_report_that_counts_wrongly(joined, changes, status, error, words):
    joined.put_parts("client-a")
    before = joined.contents()
    refused(joined.report(report=dataclasses.replace(REPORT, **changes)), status, error, *words)
    assert joined.contents() == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"0.75", b"NaN"),
        (b"0.75", b"Infinity"),
        (b"0.75", b"1e999"),
        (b"0.75", b'"0.75"'),
        (b'"loss"', b'"lost"'),
        (b"}", b""),
    ],
)
def test_a_report_that_is_no_message(joined, old, new):
    joined.put_parts("client-a")
    before = joined.contents()
    body = to_json(REPORT)
    assert old in body
    refused(joined.report(report=body.replace(old, new)), 400, "MessageError")
    assert joined.contents() == before


@pytest.mark.parametrize(
    ("client_id", "round_num", "word"),
    [
        ("client-a", 2, "round 2 is not open"),
        ("client-a", 0, "round 0 is not open"),
        ("client-a", 10**30, "is not open"),
        ("client-c", 1, "client-c has not joined"),
    ],
)
def test_a_report_that_belongs_nowhere(joined, client_id, round_num, word):
    joined.put_parts("client-a")
    before = joined.contents()
    refused(joined.report(client_id, round_num), 409, "RoundError", word)
    assert joined.contents() == before


# --- downloads


@pytest.mark.parametrize("name", DEVICE_FILES)
def test_devices_take_the_files_that_they_need(api, name):
    response = api.http.get(f"{api.root}/artifacts/{name}")
    assert response.headers["content-type"] == "application/octet-stream"
    assert hashlib.sha256(response.content).hexdigest() == api.run.bundle.manifest.file(name).sha256


OTHER_FILES = (
    COMBINED_TEMPLATE,
    NOMINAL_CHECKPOINT,
    "manifest.json",
    "token",
    "CHECKPOINT",
    "n" * 400,
    "%00",
)
TRICKS = ("%2e%2e", "..%2Ftoken", "%2e%2e%2ftoken", "..%5Ctoken", ".%2Fcheckpoint", "%2Fetc%2Fpasswd")


@pytest.mark.parametrize("name", OTHER_FILES + TRICKS)
def test_devices_take_no_other_file(api, name):
    refused(api.http.get(f"{api.root}/artifacts/{name}"), 404, "NotFound")
    assert api.run.store.traffic() == {}


def test_soft_labels_are_there_once_the_round_is_trained(joined):
    def path(client_id, round_num):
        return f"{joined.root}/rounds/{round_num}/clients/{client_id}/soft-labels"

    refused(joined.http.get(path("client-c", 1)), 409, "RoundError", "client-c has not joined")
    joined.collect()
    refused(joined.http.get(path("client-a", 1)), 404, "NotFound", "no soft labels of round 1")
    joined.train()
    for client_id in CLIENTS:
        found = joined.http.get(path(client_id, 1))
        assert found.content == soft_label_bytes(client_id, 1)
    for round_num in (0, 2, 10**30, int("9" * 300)):
        refused(joined.http.get(path("client-a", round_num)), 404, "NotFound", "no soft labels of round")


def test_the_model_is_there_once_the_run_is_finished(joined):
    for part in ("template", "server"):
        response = joined.http.get(f"{joined.root}/model/{part}")
        refused(response, 409, "RoundError", "the run is not finished")
    for round_num in (1, 2):
        joined.collect(round_num)
        joined.train(round_num)
    assert joined.http.get(f"{joined.root}/model/template").content == b"the template"
    assert joined.http.get(f"{joined.root}/model/server").content == b"the weights"
    refused(joined.http.get(f"{joined.root}/model/onnx"), 404, "NotFound", "template or server")


# --- status


def test_the_status_of_every_phase(api):
    def check(phase, round_num, reported=(), last=()):
        status = api.status()
        assert (status.run_id, status.rounds, status.num_clients) == (api.run.store.run_id, 2, 2)
        assert (status.phase, status.round_num, status.reported) == (phase, round_num, list(reported))
        assert [client.last_reported_round for client in status.clients] == list(last)
        assert status.trainer_idle_seconds >= 0
        return status

    assert check("joining", 0).clients == []
    api.join("client-b")
    check("joining", 0, last=[0])
    api.join("client-a")
    (first, _) = check("collecting", 1, last=[0, 0]).clients
    assert (first.client_id, first.num_examples, first.num_validation_examples) == ("client-a", 12, 5)
    assert first.engine == "ort_training"
    api.put_parts("client-b")
    api.report("client-b")
    check("collecting", 1, ["client-b"], last=[0, 1])
    api.put_parts("client-a")
    api.report("client-a")
    assert check("ready", 1, CLIENTS, last=[1, 1]).finished_rounds == []
    api.run.store.apply(Claimed(1))
    progress = TrainerProgress(1, 1, 1, 20.5, 0.5)
    api.run.store.report_progress(progress)
    assert check("training", 1, CLIENTS, last=[1, 1]).trainer == progress
    api.run.store.add_round_metrics(1, METRICS)
    api.run.store.apply(Trained(1))
    status = check("collecting", 2, last=[1, 1])
    assert status.trainer is None, "progress belongs to the phase in which the server trains"
    assert [metrics.round_num for metrics in status.finished_rounds] == [1]
    api.collect(2)
    api.train(2)
    status = check("finished", 2, CLIENTS, last=[2, 2])
    assert [metrics.round_num for metrics in status.finished_rounds] == [1, 2]


def test_the_status_of_a_failed_run(joined):
    joined.run.store.apply(Failed("the loss is NaN"))
    assert (joined.status().phase, joined.status().error) == ("failed", "the loss is NaN")
    task = joined.task("client-a")
    assert (task.action, task.reason) == ("stop", "the loss is NaN")


def test_the_numbers_of_a_finished_round(api):
    api.join("client-a")
    api.join("client-b", dataclasses.replace(JOIN, num_examples=4))
    api.put_parts("client-a")
    api.put_parts("client-b", parts=(("train", 0, 4, 0), PARTS[2]))
    reports = {
        "client-a": REPORT,
        "client-b": dataclasses.replace(
            REPORT, num_train_shards=1, num_examples=4, loss=1.75, accuracy=1.0, images_per_second=2.5
        ),
    }
    for client_id, report in reports.items():
        assert api.report(client_id, report=report).status_code == 200
    api.train()
    for client_id in CLIENTS:
        api.http.get(f"{api.root}/rounds/1/clients/{client_id}/soft-labels")
    (found,) = api.status().finished_rounds
    assert (found.num_examples, found.edge_loss, found.edge_accuracy) == (16, 1.0, 0.625)
    assert (found.edge_images_per_second, found.server_samples_per_second) == (10.5, 64.0)
    assert (found.train_loss, found.train_accuracy) == (0.5, 0.25)
    assert (found.validation_loss, found.validation_accuracy) == (1.5, 0.125)
    assert found.seconds == pytest.approx(found.edge_seconds + found.server_seconds)
    shard_bytes_sent = sum(shard.upload_bytes for shard in api.run.store.shards(1))
    assert found.upload_bytes == shard_bytes_sent + sum(len(to_json(each)) for each in reports.values())
    assert found.download_bytes == 0, "the soft labels of round 1 are traffic of round 2"
    traffic = api.status().traffic
    assert traffic["download/soft_labels"] == sum(len(soft_label_bytes(each, 1)) for each in CLIENTS)
    assert set(traffic) == {"upload/shards", "upload/reports", "download/soft_labels"}


# --- the run's folder


def test_a_new_run_holds_what_it_needs(server_bundle, tmp_path):
    run = create_run(tmp_path / "run", server_bundle, run_config())
    token = (tmp_path / "run" / "token").read_text().strip()
    assert len(token) >= 32
    assert (tmp_path / "run" / "token").stat().st_mode & 0o077 == 0
    assert load_bundle(tmp_path / "run" / "artifacts").manifest == run.bundle.manifest
    run.store.close()
    again = open_run(tmp_path / "run")
    assert (again.store.run_id, again.config) == (run.store.run_id, run_config())
    again.store.close()
    with pytest.raises(InputError, match="already exists"):
        create_run(tmp_path / "run", server_bundle, run_config())


@pytest.mark.parametrize(
    ("changes", "token", "words"),
    [
        ({"temperature": 2.0}, None, ["temperature 2.0", "exported with 3.0", "--temperature 2.0"]),
        ({}, "short", ["at least 8"]),
        ({}, "with a space", ["without spaces"]),
        ({}, "nicht-ascii-\xfc", ["ASCII"]),
        ({}, "two\nlines-of-token", ["printable"]),
    ],
)
def test_a_run_that_cannot_be_leaves_nothing_behind(server_bundle, tmp_path, changes, token, words):
    with pytest.raises(ConfigError) as caught:
        create_run(tmp_path / "run", server_bundle, run_config(**changes), token)
    assert all(word in str(caught.value) for word in words)
    assert list(tmp_path.iterdir()) == []
