"""Shards whose levels are coded: announced, kept as the file that they are of, and refused by name."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from edge_runtime.server_client import ServerClient
from gkt_core.wire.compression import compress
from gkt_core.wire.levels.frame import write_frame
from gkt_core.wire.levels.transport import level_features
from gkt_core.wire.protocol import LEVELS, ShardReceipt, from_json
from gkt_core.wire.shard_file import parse
from gkt_core.wire.shards import ShardKey, write_feature_shard
from server_app import RunContext, create_app
from tests.server_app.server_fixtures import (
    FEATURE_SHAPE,
    NUM_CLASSES,
    OPERATOR_SECRET,
    TOKEN,
    run_config,
    shard_bytes,
)
from tests.server_app.web.api_fixtures import Api, refused

KEY = ShardKey("client-a", 1, "train", 0)
SHARDS = "rounds/1/clients/client-a/shards"


@pytest.fixture(params=["uint4", "uint3", "uint2", "uint1"])
def codec(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def coded(run: RunContext, codec: str) -> Iterator[Api]:
    """The run with a codec of few bits, joined by its devices."""
    run = dataclasses.replace(run, config=run_config(codec=codec))
    app = create_app(run, TOKEN, operator_secret=OPERATOR_SECRET, poll_seconds=0.5)
    with httpx.Client(
        transport=httpx.WSGITransport(app=app),
        base_url="http://server",
        headers={"Authorization": f"Bearer {TOKEN}"},
    ) as http:
        api = Api(http, run)
        for client_id in ("client-a", "client-b"):
            assert api.join(client_id).status_code == 200
        yield api


def body_of(data: bytes, codec: str) -> bytes:
    """The frame of a shard, whatever its size."""
    levels = level_features(codec, FEATURE_SHAPE)
    assert levels is not None
    whole = np.frombuffer(data, np.uint8)
    packed = parse(whole)[0]["features"]
    return write_frame(data, packed.ctypes.data - whole.ctypes.data, len(packed), levels)


def smooth_shard(seed: int) -> bytes:
    """Features of which neighbours are alike, as those of images are."""
    walk = np.random.default_rng(seed).normal(size=(8, *FEATURE_SHAPE)).cumsum(axis=2).cumsum(axis=3)
    logits, ids = np.zeros((8, NUM_CLASSES), np.float32), np.arange(8)
    return write_feature_shard(KEY, ids, walk.astype(np.float32), logits, ids % NUM_CLASSES, "uint4")


def test_a_coded_shard_is_kept_as_the_file_that_it_is_of(coded: Api, codec: str) -> None:
    data = shard_bytes(KEY, 8, codec=codec)
    body = body_of(data, codec)
    response = coded.put_shard(KEY, body, Content_Encoding=LEVELS)
    assert from_json(ShardReceipt, response.content) == ShardReceipt(8, len(body), already_stored=False)
    (record,) = coded.run.store.shards(1)
    assert record.sha256 == hashlib.sha256(body).hexdigest()
    assert coded.run.blobs.local_path(record.blob).read_bytes() == data
    assert coded.run.store.traffic() == {("upload/shards", 1): len(body)}
    again = from_json(ShardReceipt, coded.put_shard(KEY, body, Content_Encoding=LEVELS).content)
    assert again.already_stored


def test_the_three_ways_to_travel_are_kept_under_one_name(coded: Api, codec: str) -> None:
    data, names = shard_bytes(KEY, 8, codec=codec), set()
    for body, encoding in ((data, "identity"), (compress(data), "zstd"), (body_of(data, codec), LEVELS)):
        assert coded.put_shard(KEY, body, Content_Encoding=encoding).status_code == 200
        (record,) = coded.run.store.shards(1)
        names.add(record.blob)
    assert len(names) == 1


def test_the_list_of_missing_shards_says_what_is_taken(coded: Api, joined: Api) -> None:
    for api, taken in ((coded, "zstd, gkt-levels"), (joined, "zstd")):
        answer = api.http.get(f"{api.root}/{SHARDS}")
        assert answer.headers["Accept-Encoding"] == taken


@pytest.mark.parametrize("codec", ["uint4"], indirect=True)
def test_a_device_codes_once_the_server_said_that_it_takes_it(coded: Api, codec: str) -> None:
    """Real client, real application: before that, as a device of an earlier version, it sends Zstandard."""
    application = httpx.WSGITransport(app=create_app(coded.run, TOKEN, operator_secret=OPERATOR_SECRET))
    seen: list[str] = []

    class Listening(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            seen.append(request.headers.get("Content-Encoding", ""))
            return application.handle_request(request)

    client = ServerClient("http://server", TOKEN, transport=Listening())
    client.find_run()
    client.levels = level_features(codec, FEATURE_SHAPE)
    client.put_shard(KEY, smooth_shard(1), compressed=True)
    client.missing_shards("client-a", 1)
    client.put_shard(KEY, smooth_shard(2), compressed=True)
    assert [each for each in seen if each] == ["zstd", LEVELS]
    (record,) = coded.run.store.shards(1)
    assert coded.run.blobs.local_path(record.blob).read_bytes() == smooth_shard(2)
    client.close()


def test_a_run_without_levels_takes_none(joined: Api) -> None:
    answer = joined.put_shard(KEY, b"GKLV", Content_Encoding=LEVELS)
    refused(answer, 400, "ShardError", "content encoding 'gkt-levels', expected zstd or none")


def test_spoilt_frames_are_refused_by_name_and_nothing_is_kept(coded: Api, codec: str) -> None:
    data = shard_bytes(KEY, 8, codec=codec)
    body = body_of(data, codec)
    levels = level_features(codec, FEATURE_SHAPE)
    assert levels is not None
    other = "uint2" if codec != "uint2" else "uint4"
    begin = len(data) - 8 * levels.sample_bytes
    spoilt = {
        "no frame of levels": b"",
        "its head says": body[:-1],
        "this run expects": body_of(shard_bytes(KEY, 8, codec=other), other),
        "beside them": write_frame(data, begin, 8, levels)[:36] + b"\xff" * 4 + body[40:],
        "not that of a gkt shard": write_frame(b"\2\0\0\0\0\0\0\0{}" + data[begin:], 10, 8, levels),
    }
    for match, each in spoilt.items():
        refused(coded.put_shard(KEY, each, Content_Encoding=LEVELS), 400, "ShardError", match)
    wrong = bytearray(body)
    wrong[-1] ^= 1
    headers = {"Content_Encoding": LEVELS, "X-Content-SHA256": hashlib.sha256(body).hexdigest()}
    refused(coded.put_shard(KEY, bytes(wrong), **headers), 400, "ChecksumError", "send it again")
    assert coded.run.store.shards(1) == []


def test_values_that_a_run_does_not_expect_are_found_in_coded_shards_too(coded: Api, codec: str) -> None:
    too_many = shard_bytes(KEY, 9, codec=codec)
    answer = coded.put_shard(KEY, body_of(too_many, codec), Content_Encoding=LEVELS)
    refused(answer, 400, "ShardError", "9 samples, ")
    other = shard_bytes(dataclasses.replace(KEY, round_num=2), 8, codec=codec)
    answer = coded.put_shard(KEY, body_of(other, codec), Content_Encoding=LEVELS)
    refused(answer, 400, "ShardError", "round_num '2'")
