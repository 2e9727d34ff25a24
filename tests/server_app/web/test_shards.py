"""Shards over HTTP: what is kept, what is refused, and what a storage in trouble answers."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors import numpy as safetensors

from gkt_core.bundle.manifest import Manifest
from gkt_core.errors import ArtifactError
from gkt_core.wire.compression import compress
from gkt_core.wire.protocol import (
    SHA256_HEADER,
    ShardReceipt,
    from_json,
)
from gkt_core.wire.shards import ShardKey, write_feature_shard
from server_app import RunContext, create_app, create_run
from tests.server_app.server_fixtures import TOKEN, run_config, shard_bytes
from tests.server_app.web.api_fixtures import (
    Api,
    refused,
)

KEY = ShardKey("client-a", 1, "train", 0)


def test_a_shard_is_kept_as_it_was_sent(joined: Api) -> None:
    data = shard_bytes(KEY, 8)
    response = joined.put_shard(KEY, data)
    assert from_json(ShardReceipt, response.content) == ShardReceipt(8, len(data), already_stored=False)
    (record,) = joined.run.store.shards(1)
    assert (record.key, record.num_samples, record.upload_bytes) == (KEY, 8, len(data))
    assert joined.run.blobs.local_path(record.blob).read_bytes() == data
    assert joined.run.store.traffic() == {("upload/shards", 1): len(data)}


def test_a_compressed_shard_is_kept_decompressed_and_counted_as_it_travelled(joined: Api) -> None:
    data = shard_bytes(KEY, 8)
    body = compress(data)
    assert joined.put_shard(KEY, body, Content_Encoding="zstd").status_code == 200
    (record,) = joined.run.store.shards(1)
    assert record.sha256 == hashlib.sha256(body).hexdigest()
    assert joined.run.blobs.local_path(record.blob).read_bytes() == data
    assert joined.run.store.traffic() == {("upload/shards", 1): len(body)}


def test_an_equal_shard_may_come_again_at_any_time(joined: Api) -> None:
    def again() -> None:
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


def test_a_shard_with_new_content_replaces_the_one_before(joined: Api) -> None:
    joined.put_shard(KEY, shard_bytes(KEY, 8, seed=1))
    data = shard_bytes(KEY, 7, seed=2)
    assert from_json(ShardReceipt, joined.put_shard(KEY, data).content).already_stored is False
    (record,) = joined.run.store.shards(1)
    assert (record.num_samples, joined.run.blobs.local_path(record.blob).read_bytes()) == (7, data)


def test_new_content_after_the_report_is_refused(joined: Api) -> None:
    joined.put_parts("client-a")
    joined.report("client-a")
    before = joined.contents()
    response = joined.put_shard(KEY, shard_bytes(KEY, 8, seed=9))
    refused(response, 409, "RoundError", "client-a has closed its part of round 1")
    assert joined.contents() == before


def changed_shard(codec: str = "uint8", drop: Sequence[str] = (), **changes: Any) -> bytes:
    """A shard of 8 samples, of which some tensors differ from what the run expects."""
    data = shard_bytes(KEY, 8, codec=codec)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    tensors = safetensors.load(data) | changes
    kept = {name: value for name, value in tensors.items() if name not in drop}
    return safetensors.save(kept, metadata=header["__metadata__"])


def repeated(first: int, *rest: int) -> NDArray[np.int64]:
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
def test_a_shard_that_the_run_does_not_expect(joined: Api, name: str) -> None:
    body, word = BAD_SHARDS[name]
    before = joined.contents()
    refused(joined.put(body), 400, "ShardError", word)
    assert joined.contents() == before


def test_features_that_are_not_finite_are_refused_for_floats_too(server_bundle: Path, tmp_path: Path) -> None:
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
def test_a_body_that_is_not_encoded_as_it_says(joined: Api, name: str) -> None:
    body, encoding, word = ENCODED[name]
    assert len(ZEROS) < 10_000
    before = joined.contents()
    refused(joined.put(body, Content_Encoding=encoding), 400, "ShardError", word)
    assert joined.contents() == before


@pytest.mark.parametrize("given", ["", "0" * 64, "nonsense", hashlib.sha256(GOOD[:-1]).hexdigest()])
def test_a_body_that_is_not_what_its_hash_says(joined: Api, given: Any) -> None:
    before = joined.contents()
    response = joined.put(GOOD, **{SHA256_HEADER: given})
    refused(response, 400, "ChecksumError", hashlib.sha256(GOOD).hexdigest(), "send it again")
    assert joined.contents() == before


def test_a_hash_is_needed_and_its_case_does_not_matter(joined: Api) -> None:
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
def test_a_shard_that_belongs_nowhere(joined: Api, path: str, status: int, error: str, word: str) -> None:
    before = joined.contents()
    refused(joined.put(GOOD, path), status, error, word)
    assert joined.contents() == before


def test_nobody_uploads_before_the_round_is_open(api: Api) -> None:
    before = api.contents()
    refused(api.put(GOOD), 409, "RoundError", "client-a has not joined")
    assert api.contents() == before
    api.join("client-a")
    before = api.contents()
    refused(api.put(GOOD), 409, "RoundError", "round 1 is not open: the run is joining")
    assert api.contents() == before


def test_a_body_that_no_shard_can_have(joined: Api) -> None:
    limit = joined.run.shard_spec.max_bytes + 64 * 1024
    before = joined.contents()
    refused(joined.put(bytes(limit + 1)), 413, "RequestEntityTooLarge", str(limit))
    refused(joined.put(bytes(limit)), 400, "ShardError")
    assert joined.contents() == before


@pytest.mark.parametrize("codec", ["fp32", "fp16", "uint8", "uint4"])
@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("sent", ["plain", "compressed"])
def test_what_no_network_of_the_bundle_gives_is_refused_by_name(
    server_bundle: Path, tmp_path: Path, codec: str, split: str, sent: str
) -> None:
    """Finite, and as large as the codec can say; what is as large as is taken comes in."""
    run = create_run(tmp_path / "run", server_bundle, run_config(codec=codec), TOKEN)
    key, most = ShardKey("client-a", 1, split, 0), run.shard_spec.most_feature
    assert (most, run.shard_spec.most_logit) == (1e4, 1e4)

    def body(reach: float, logit: float = 1.0) -> bytes:
        features = np.zeros((5, *run.shard_spec.feature_shape), np.float32)
        features[2, 3, 4, 5] = reach
        logits = np.full((5, run.shard_spec.num_classes), logit, np.float32)
        return write_feature_shard(key, np.arange(5), features, logits, np.zeros(5, np.int64), codec)

    def put(data: bytes) -> httpx.Response:
        coded = {"Content_Encoding": "zstd"} if sent == "compressed" else {}
        return api.put_shard(key, compress(data) if coded else data, **coded)

    transport = httpx.WSGITransport(app=create_app(run, TOKEN))
    with httpx.Client(transport=transport, base_url="http://server") as http:
        http.headers["Authorization"] = f"Bearer {TOKEN}"
        api = Api(http, run)
        assert all(api.join(client_id).status_code == 200 for client_id in ("client-a", "client-b"))
        for reach in (6e4, -6e4) if codec == "fp16" else (3e38, -3e38):
            refused(put(body(reach)), 400, "ShardError", "features reach", "stays within 1e+04", "edge_lr")
        refused(put(body(1.0, logit=-3e38)), 400, "ShardError", "client_logits reach 3e+38")
        assert run.store.shards(1) == []
        assert put(body(0.99 * most, logit=most)).status_code == 200
    run.store.close()


def test_bundles_of_earlier_versions_have_a_generous_bound(run: RunContext) -> None:
    manifest = dataclasses.replace(run.bundle.manifest, bounds={})
    assert (manifest.bound("features"), manifest.bound("logits")) == (1e6, 1e6)
    for bounds in ({"features": -1.0}, {"features": "many"}, {"features": float("inf")}, {"logits": None}):
        values = dataclasses.replace(manifest, bounds=bounds).to_dict()
        with pytest.raises(ArtifactError, match="the manifest is not valid"):
            Manifest.from_dict(values)
