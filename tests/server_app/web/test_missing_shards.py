"""What a device is told to send again, that it is late, and that the storage is in trouble."""

import dataclasses
import sqlite3
from pathlib import Path

import httpx
import pytest
from sqlalchemy.exc import OperationalError

from gkt_core.rounds.learning_rate import learning_rate_scale
from gkt_core.wire import protocol
from gkt_core.wire.protocol import (
    MissingShards,
    Task,
    from_json,
)
from gkt_core.wire.shards import ShardKey
from server_app import create_app, create_run
from server_app.rounds.state import DeadlinePassed, Revoked
from tests.server_app.server_fixtures import CLIENTS, TOKEN, run_config, shard_bytes
from tests.server_app.web.api_fixtures import (
    JOIN,
    METRICS,
    NUM_TRAIN,
    PARTS,
    Api,
    refused,
)

GOOD = shard_bytes(ShardKey("client-a", 1, "train", 0), 8)


def missing(api: Api, client_id: str = "client-a", round_num: int = 1) -> httpx.Response:
    return api.http.get(f"{api.root}/rounds/{round_num}/clients/{client_id}/shards")


def test_a_device_that_lost_its_link_learns_what_is_missing(joined: Api) -> None:
    def still_missing() -> MissingShards:
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


def test_what_is_missing_of_very_many(api: Api) -> None:
    api.join("client-a", dataclasses.replace(JOIN, num_examples=999_000))
    api.join("client-b")
    found = from_json(MissingShards, missing(api).content)
    assert found == MissingShards(list(range(protocol.MAX_MISSING_SHARDS)), [0])


def test_a_device_that_is_too_late_learns_so_and_takes_part_again(joined: Api) -> None:
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


def test_a_revoked_device_is_told_so(joined: Api) -> None:
    joined.run.store.apply(Revoked("client-a"))
    assert joined.task("client-a").action == "stop"
    refused(joined.put(GOOD), 409, "RoundError", "client-a was revoked")
    refused(joined.join("client-a"), 409, "RoundError", "client-a was revoked")
    assert (joined.status().revoked, joined.status().selected) == (["client-a"], ["client-b"])


def test_devices_are_told_the_learning_rate_of_the_round(server_bundle: Path, tmp_path: Path) -> None:
    config = run_config(rounds=3, lr_schedule="cosine", plateau_patience=1)
    run = create_run(tmp_path / "run", server_bundle, config, TOKEN)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    transport = httpx.WSGITransport(app=create_app(run, TOKEN))
    with httpx.Client(transport=transport, base_url="http://server", headers=headers) as http:
        api = Api(http, run)
        for client_id in CLIENTS:
            api.join(client_id)
        scales: list[float] = []
        for round_num in (1, 2, 3):
            scales.append(api.task("client-a").learning_rate_scale)
            api.collect(round_num)
            assert api.task("client-a").learning_rate_scale == 1.0, "nothing to train"
            api.train(round_num)
    accuracy = METRICS["validation_accuracy"]
    expected = [learning_rate_scale(config, each, [accuracy] * (each - 1)) for each in (1, 2, 3)]
    assert scales == expected and scales[0] == 1 and scales[2] < 0.5 * scales[1] < 0.5
    run.store.close()


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        OperationalError("UPDATE runs", {}, sqlite3.OperationalError("database is locked")),
    ],
)
def test_a_storage_that_does_not_answer_asks_for_patience(
    joined: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    before = joined.contents()

    def fail(*_: object) -> None:
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


WRITES = {OSError: "put_file", OperationalError: "keep_shard"}


@pytest.mark.parametrize("length", [0, 7, 100, 2000])
def test_a_shard_that_was_cut_short_is_asked_for_again(joined: Api, length: int) -> None:
    joined.put_parts("client-a")

    def cut_short() -> None:
        (record,) = (
            each for each in joined.run.store.shards(1) if each.key == ShardKey("client-a", 1, "train", 1)
        )
        with joined.run.blobs.local_path(record.blob).open("r+b") as stream:
            stream.truncate(length)

    cut_short()
    assert from_json(MissingShards, missing(joined).content) == MissingShards([1], [])
    joined.put_parts("client-a", parts=(PARTS[1],))
    cut_short()
    # Since it was asked for: the device asks again, and is refused nothing that it could not send.
    refused(joined.report(), 409, "RoundError", "shards [1] of 2 have not arrived")
    assert from_json(MissingShards, missing(joined).content) == MissingShards([1], [])
    joined.put_parts("client-a", parts=(PARTS[1],))
    assert joined.report().status_code == 200
