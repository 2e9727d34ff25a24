"""Reports and downloads over HTTP."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from gkt_core.bundle.manifest import COMBINED_TEMPLATE, DEVICE_FILES, NOMINAL_CHECKPOINT
from gkt_core.wire.protocol import (
    RoundReport,
    Task,
    from_json,
    to_json,
)
from server_app import create_app
from server_app.rounds.machine import rounds_of
from tests.server_app.server_fixtures import CLIENTS, TOKEN
from tests.server_app.web.api_fixtures import (
    PARTS,
    REPORT,
    WEIGHTS,
    Api,
    Part,
    refused,
    soft_label_bytes,
)

# --- reports


def test_a_report_closes_a_devices_part_once(joined: Api) -> None:
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
def test_a_report_before_everything_has_arrived(joined: Api, parts: Sequence[Part], words: list[str]) -> None:
    joined.put_parts("client-a", parts=parts)
    before = joined.contents()
    refused(joined.report(), 409, "RoundError", *words)
    assert joined.contents() == before
    joined.put_parts("client-a")
    assert joined.report().status_code == 200


def test_a_sample_in_two_shards(joined: Api) -> None:
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
        ({"loss": -1.0}, 400, "MessageError", ["loss -1, expected 0 to"]),
        ({"accuracy": -0.5}, 400, "MessageError", ["expected 0 to"]),
        ({"train_seconds": -0.5}, 400, "MessageError", ["expected 0 to"]),
        ({"images_per_second": -8.0}, 400, "MessageError", ["expected 0 to"]),
        ({"images_per_second": 1e308}, 400, "MessageError", ["reports images_per_second 1e+308"]),
        ({"accuracy": 1.5}, 400, "MessageError", ["accuracy 1.5, expected 0 to 1"]),
        ({"loss": 9e14}, 400, "MessageError", ["loss 9e+14"]),
        ({"train_seconds": 9e14}, 400, "MessageError", ["train_seconds"]),
    ],
)
def test_a_report_that_counts_wrongly(
    joined: Api, changes: Any, status: int, error: str, words: list[str]
) -> None:
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
def test_a_report_that_is_no_message(joined: Api, old: bytes, new: bytes) -> None:
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
def test_a_report_that_belongs_nowhere(joined: Api, client_id: str, round_num: int, word: str) -> None:
    joined.put_parts("client-a")
    before = joined.contents()
    refused(joined.report(client_id, round_num), 409, "RoundError", word)
    assert joined.contents() == before


# --- downloads


@pytest.mark.parametrize("name", DEVICE_FILES)
def test_devices_take_the_files_that_they_need(api: Api, name: str) -> None:
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
def test_devices_take_no_other_file(api: Api, name: str) -> None:
    refused(api.http.get(f"{api.root}/artifacts/{name}"), 404, "NotFound")
    assert api.run.store.traffic() == {}


def test_soft_labels_are_there_once_the_round_is_trained(joined: Api) -> None:
    def path(client_id: str, round_num: int) -> str:
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


def test_the_model_is_there_once_the_run_is_finished(joined: Api) -> None:
    for part in ("template", "server"):
        response = joined.http.get(f"{joined.root}/model/{part}")
        refused(response, 409, "RoundError", "the run is not finished")
    for round_num in (1, 2):
        joined.collect(round_num)
        joined.train(round_num)
    assert joined.http.get(f"{joined.root}/model/template").content == b"the template"
    assert joined.http.get(f"{joined.root}/model/server").content == WEIGHTS
    refused(joined.http.get(f"{joined.root}/model/onnx"), 404, "NotFound", "template or server")


# --- rounds without an upload


def scheduled(api: Api, uploads: str) -> Api:
    """The same run, with a schedule, in round 2: round 1 was uploaded and trained on."""
    api.run = dataclasses.replace(api.run, config=dataclasses.replace(api.run.config, uploads=uploads))
    app = create_app(api.run, TOKEN, poll_seconds=0.5)
    api.http = httpx.Client(
        transport=httpx.WSGITransport(app=app), base_url="http://server", headers=api.http.headers
    )
    api.collect()
    api.train()
    return api


AGAIN = dataclasses.replace(REPORT, upload_round=1)


def test_a_report_may_be_about_the_upload_that_is_held(joined: Api) -> None:
    api = scheduled(joined, "rounds=1")
    task = api.task("client-a")
    assert (task.action, task.round_num, task.soft_labels_round) == ("train", 2, 1)
    assert (task.upload_round, task.view_round) == (1, 1)
    assert from_json(Task, api.report(round_num=2, report=AGAIN).content).action == "wait"
    assert api.run.store.state().last_upload("client-a") == 1
    # A device may upload all the same: the server then trains on that.
    api.put_parts("client-b", 2)
    assert api.report("client-b", 2).status_code == 200
    state = api.run.store.state()
    assert rounds_of(state).uploads(state) == {"client-a": 1, "client-b": 2}
    assert rounds_of(state).parts(state) == {"client-a": 2, "client-b": 2}


@pytest.mark.parametrize(
    ("uploads", "report", "words"),
    [
        ("rounds=1", dataclasses.replace(REPORT, upload_round=3), ["upload of round 3", "that of round 1"]),
        ("rounds=1", dataclasses.replace(REPORT, upload_round=-1), ["that of round 1"]),
        ("rounds=1,2", AGAIN, ["uploads are rounds=1,2: upload this round's"]),
        ("every", AGAIN, ["none is held"]),
        ("drift=0.1", dataclasses.replace(AGAIN, num_train_shards=3), ["train shards [2] of 3"]),
    ],
)
def test_a_report_about_another_upload_is_refused(
    uploads: str, report: RoundReport, words: list[str], joined: Api
) -> None:
    api = scheduled(joined, uploads)
    before = api.contents()
    refused(api.report(round_num=2, report=report), 409, "RoundError", *words)
    assert api.contents() == before
