"""What devices may store: shards of the samples that they announced, each once, while the disk has room."""

from __future__ import annotations

import dataclasses
import mmap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from gkt_core.errors import NoRoomError, RoundClosedError
from gkt_core.wire.protocol import JoinRequest, Task, from_json
from gkt_core.wire.shards import ShardKey
from server_app import RunContext, create_app
from server_app.members.membership import change_client
from server_app.quota import Limits, Quota
from server_app.rounds.state import DeadlinePassed, RulesChanged
from server_app.store import UploadView
from tests.server_app.server_fixtures import TOKEN, shard_bytes
from tests.server_app.web.api_fixtures import JOIN, PARTS, Api, refused

KEY = ShardKey("client-a", 1, "train", 0)


def stored(run: RunContext) -> list[Path]:
    return sorted(path for path in (run.folder / "blobs").rglob("*") if path.is_file())


def body(seed: int, num_samples: int = 8) -> bytes:
    return shard_bytes(KEY, num_samples, seed=seed)


def test_three_hundred_replacements_leave_one_shard(joined: Api) -> None:
    for seed in range(300):
        assert joined.put_shard(KEY, body(seed)).status_code == 200
    (left,) = stored(joined.run)
    assert left.read_bytes() == body(299)
    # The same once more, and one that it had before.
    for seed in (299, 0):
        assert joined.put_shard(KEY, body(seed)).status_code == 200
    (left,) = stored(joined.run)
    assert left.read_bytes() == body(0)


def test_a_replaced_shard_goes_at_once_under_a_reader_who_keeps_it(joined: Api) -> None:
    assert joined.put_shard(KEY, body(1)).status_code == 200
    (before,) = stored(joined.run)
    with before.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert joined.put_shard(KEY, body(2)).status_code == 200
        assert not before.exists()
        assert bytes(mapped) == body(1)


def test_replacements_at_once_leave_the_one_that_is_noted(joined: Api) -> None:
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda seed: joined.put_shard(KEY, body(seed % 5)).status_code, range(80)))
    assert answers == [200] * 80
    (shard,) = joined.run.store.shards(1)
    assert [joined.run.blobs.local_path(shard.blob)] == stored(joined.run)


def test_samples_that_are_not_the_devices_any_more_go_with_their_shards(joined: Api) -> None:
    for number in range(5):
        changed = dataclasses.replace(JOIN, samples_sha256=f"{number:064x}")
        assert joined.join("client-a", changed).status_code == 200
        assert joined.put_shard(KEY, body(number)).status_code == 200
    assert len(stored(joined.run)) == 1


def test_a_revoked_device_leaves_the_room_that_it_took(joined: Api) -> None:
    joined.put_parts("client-a")
    joined.put_parts("client-b")
    assert len(stored(joined.run)) == 2 * len(PARTS)
    change_client(joined.run, "client-a", "revoke")
    left = stored(joined.run)
    assert len(left) == len(PARTS) and all(path.parent.name == "client-b" for path in left)


def test_a_shard_that_comes_while_its_round_is_closed_is_not_kept(joined: Api) -> None:
    """The round goes on between the look before the body and the one that keeps it."""
    joined.put_parts("client-b")
    assert joined.report("client-b").status_code == 200
    assert joined.put_shard(KEY, body(1)).status_code == 200
    store, before = joined.run.store, stored(joined.run)
    store.apply(RulesChanged(1, 5.0))
    original = store.upload_view

    def then_closed(key: ShardKey) -> UploadView:
        view = original(key)
        store.apply(DeadlinePassed(1))
        return view

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "upload_view", then_closed)
        answer = joined.put_shard(KEY, body(2))
    refused(answer, 409, RoundClosedError.__name__, "round 1 is not open")
    assert stored(joined.run) == before


@pytest.mark.parametrize("num", [2**62, 1_000_001])
def test_more_samples_than_a_device_may_have_are_refused_by_name(api: Api, num: int) -> None:
    for message in (
        dataclasses.replace(JOIN, num_examples=num),
        dataclasses.replace(JOIN, num_validation_examples=num),
    ):
        refused(api.join("client-a", message), 400, "MessageError", str(num), "1000000", "--max-samples")
    assert api.run.store.clients() == {}


def test_whoever_runs_the_server_says_how_many(run: RunContext) -> None:
    app = create_app(run, TOKEN, limits=Limits(max_samples=16))
    with httpx.Client(
        transport=httpx.WSGITransport(app=app),
        base_url="http://server",
        headers={"Authorization": f"Bearer {TOKEN}"},
    ) as http:
        api = Api(http, run)
        refused(api.join("client-a"), 400, "MessageError", "12 training and 5 validation", "16 at most")
        assert api.join("client-a", dataclasses.replace(JOIN, num_validation_examples=4)).status_code == 200


@pytest.mark.parametrize("index", [2, 2**55])
def test_a_shard_beyond_those_that_were_announced_is_refused_by_name(joined: Api, index: int) -> None:
    key = dataclasses.replace(KEY, index=index)
    answer = joined.put_shard(key, shard_bytes(key, 4))
    refused(answer, 400, "ShardError", "announced 12 samples", "index below 2")
    assert stored(joined.run) == []


def test_a_shard_holds_no_more_samples_than_are_left_for_it(joined: Api) -> None:
    """A device that announced 12 samples has 4 in its second shard, not 8."""
    key = dataclasses.replace(KEY, index=1)
    refused(joined.put_shard(key, shard_bytes(key, 5)), 400, "ShardError", "holds 5 samples, expected 4")
    assert stored(joined.run) == []
    assert joined.put_shard(key, shard_bytes(key, 4)).status_code == 200


def test_uploads_wait_under_the_reserve_and_all_else_goes_on(joined: Api) -> None:
    """A disk that has less room than ten thousand terabytes."""
    run = joined.run
    app = create_app(run, TOKEN, limits=Limits(reserve_bytes=10**22))
    with httpx.Client(
        transport=httpx.WSGITransport(app=app),
        base_url="http://server",
        headers={"Authorization": f"Bearer {TOKEN}"},
    ) as http:
        api = Api(http, run)
        answer = api.put_shard(KEY, body(1))
        refused(answer, 503, "NoRoomError", "no room for uploads", "MB are free", "reserved")
        assert int(answer.headers["Retry-After"]) >= 1
        refused(http.get("/v1/health"), 503, "ServiceUnavailable", "the server's disk has no room")
        assert api.status().phase == "collecting"
        assert isinstance(api.join("client-a", JOIN).json(), dict)
        assert from_json(Task, api.join("client-a", JOIN).content).action == "train"
        assert http.get(f"{api.root}/rounds/1/clients/client-a/shards").status_code == 200
    change_client(run, "client-b", "revoke")
    assert stored(run) == []


def test_the_announcement_of_a_device_is_what_its_uploads_are_held_against(api: Api) -> None:
    """A device that announces fewer samples than before may store fewer."""
    for client_id in ("client-a", "client-b"):
        small = JoinRequest(JOIN.protocol_version, 2, 1, JOIN.num_classes, "ort_training")
        assert api.join(client_id, small).status_code == 200
    refused(api.put_shard(KEY, body(1)), 400, "ShardError", "holds 8 samples, expected 2")


def test_one_device_does_not_have_the_disk_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four devices on a disk with room for 800 bytes beside the reserve; one has sent a lot."""
    taken = [0]
    monkeypatch.setattr("server_app.quota._free_bytes", lambda folder: 900 - taken[0])
    quota = Quota((tmp_path,), 8, Limits(reserve_bytes=100), num_devices=4)

    def send(client_id: str, index: int, num_bytes: int) -> None:
        key = ShardKey(client_id, 1, "train", index)
        quota.check_share(key)
        quota.count(key, num_bytes)
        taken[0] += num_bytes

    # While half of it is free, nobody is refused: devices differ.
    send("a", 0, 300)
    # Replaced, not added.
    quota.count(ShardKey("a", 1, "train", 0), 400)
    taken[0] += 100
    send("a", 1, 10)
    for _ in range(2):
        with pytest.raises(
            NoRoomError, match=r"a has 0 MB of the 0 MB .* more than its share among 4 devices"
        ):
            quota.check_share(ShardKey("a", 1, "train", 2))
    for client_id in "bcd":
        send(client_id, 0, 100)
    # A round later what it sent is gone.
    taken[0] = 0
    quota.check_share(ShardKey("a", 2, "train", 0))
