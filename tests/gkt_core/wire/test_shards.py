"""Shards: what is written can be read, equal content is equal bytes, and features stay on disk."""

from __future__ import annotations

import json
import mmap
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gkt_core.config.run_config import CODECS
from gkt_core.errors import CodecError, ShardError
from gkt_core.files import write_atomically
from gkt_core.wire.codec import decode, encode
from gkt_core.wire.shard_file import MAX_HEADER_BYTES
from gkt_core.wire.shards import (
    ShardKey,
    ShardSpec,
    SoftLabels,
    map_feature_shard,
    read_feature_shard,
    read_soft_labels,
    write_feature_shard,
)
from tests.conftest import LONGEST_SECONDS, ROOT
from tests.gkt_core.wire.shard_content import (
    CLASSES,
    KEY,
    SAMPLE_IDS,
    SHAPE,
    content,
    digests,
    shard_bytes,
    soft_label_bytes,
    spec,
)

# Changes only when the format does; then SHARD_VERSION must change too.
GOLDEN = {
    "fp32": "ad2e0549a2dd8e69882e8fbbeee6b285e9769638d9733a9488fd8d8fded5d6b9",
    "fp16": "e80be510fa648806fee7ddfe6d9464c59d02bb0fdd5276c584a59c34d10e6f50",
    "uint8": "17913bf9db7ae2792736cca58c916da1aec390854f36526d544061d397d020ef",
    "uint4": "919b1b6c24a8655daf04f9e164f2ce55a44dfb03a26d09076b2d1d8d140c1acc",
    "uint3": "c338a4eb3a53955611873317891e0e7b1a3a0442c42837db81ee839c01b9c151",
    "uint2": "800cab93c5762f533ee8970ac6d884f0f9cc230f3365e95472639b49c42d6316",
    "uint1": "e13eade796fcbb3fac7a63eece6027ac54583b2dd20b1cc5257a0517a013883f",
    "soft_labels": "4692659db89efc9a71506f916ab91beb397cb2a4cc34c4cee64ddf09e2ad527f",
}


# --- what is written can be read


@pytest.mark.parametrize("codec", CODECS)
def test_a_shard_is_read_as_it_was_written(codec: str) -> None:
    features, logits, labels = content()
    shard = read_feature_shard(shard_bytes(codec), KEY, spec(codec))
    assert np.array_equal(shard.sample_ids, SAMPLE_IDS)
    assert np.array_equal(shard.labels, labels)
    assert np.array_equal(shard.client_logits, logits)
    assert np.array_equal(shard.features(), decode(encode(features, codec), SHAPE))
    most = {"uint8": 1 / 120, "uint4": 1 / 7, "uint3": 1 / 2, "uint2": 1, "uint1": 2.5}
    assert np.abs(shard.features() - features).max() <= most.get(codec, 0)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(("size", "classes"), [(8, 2), (32, 10), (32, 1000), (64, 10), (224, 10)])
def test_as_many_samples_as_a_size_allows(codec: str, size: int, classes: int) -> None:
    num = ShardSpec(codec, (16, size, size), classes, 1).samples_within(512_000)
    key = ShardKey("c" * 64, 2**31, "validation", 10**6)

    def num_bytes(num: int) -> int:
        features = np.zeros((num, 16, size, size), np.float32)
        logits = np.zeros((num, classes), np.float32)
        return len(
            write_feature_shard(key, np.arange(num), features, logits, np.arange(num) % classes, codec)
        )

    # A sample may be larger than that, and travels all the same.
    assert num == 1 or num_bytes(num) <= 512_000
    assert num_bytes(num + 1) > 512_000 - 2048


@pytest.mark.parametrize("codec", CODECS)
@given(data=st.data())
@settings(max_examples=25)
def test_any_shard_is_read_as_it_was_written(codec: str, data: st.DataObject) -> None:
    num = data.draw(st.integers(1, 6))
    seed = data.draw(st.integers(0, 2**32))
    ids = data.draw(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=num, max_size=num, unique=True))
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(num, *SHAPE)).astype(np.float32)
    logits = rng.normal(size=(num, CLASSES)).astype(np.float32)
    labels = rng.integers(0, CLASSES, num)
    client_id = data.draw(st.text("abcXYZ019_.-", min_size=1, max_size=64))
    key = ShardKey(
        client_id, data.draw(st.integers(1, 2**31)), data.draw(st.sampled_from(["train", "validation"])), 0
    )
    written = write_feature_shard(key, np.array(ids, np.int64), features, logits, labels, codec)
    assert len(written) <= spec(codec).max_bytes
    shard = read_feature_shard(written, key, spec(codec))
    assert shard.sample_ids.tolist() == ids
    assert np.array_equal(shard.labels, labels)
    assert shard.client_logits.tobytes() == logits.tobytes()
    assert np.array_equal(shard.features(), decode(encode(features, codec), SHAPE))
    row = data.draw(st.integers(0, num - 1))
    assert np.array_equal(shard.features(np.array([row])), shard.features()[row : row + 1])


def test_the_order_of_samples_is_kept_so_that_rows_belong_together() -> None:
    shard = read_feature_shard(shard_bytes(), KEY, spec("fp32"))
    place = shard.sample_ids.tolist().index(900)
    features, logits, labels = content()
    assert np.array_equal(shard.features(slice(place, place + 1))[0], features[2])
    assert np.array_equal(shard.client_logits[place], logits[2])
    assert shard.labels[place] == labels[2]


def test_soft_labels_are_read_as_they_were_written() -> None:
    read = read_soft_labels(soft_label_bytes(), "client-000", 3, CLASSES)
    assert np.array_equal(read.sample_ids, SAMPLE_IDS)
    assert np.array_equal(read.server_logits, content()[1])


def test_equal_content_is_equal_bytes_for_ever() -> None:
    assert digests() == GOLDEN


def test_equal_content_is_equal_bytes_in_another_process() -> None:
    code = "import json; from tests.gkt_core.wire.shard_content import digests; print(json.dumps(digests()))"
    fresh = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=LONGEST_SECONDS,
    )
    assert json.loads(fresh.stdout) == GOLDEN


def test_a_shard_does_not_depend_on_how_its_arrays_lie_in_memory() -> None:
    features, logits, labels = content()
    strided = np.ascontiguousarray(features.transpose(3, 2, 1, 0)).transpose(3, 2, 1, 0)
    written = write_feature_shard(
        KEY, SAMPLE_IDS.astype(np.int32), strided, np.asfortranarray(logits), labels.astype(np.uint8), "fp32"
    )
    assert written == shard_bytes("fp32")


@pytest.mark.parametrize("codec", CODECS)
def test_max_bytes_holds_the_largest_shard_and_little_more(codec: str) -> None:
    big = ShardSpec(codec, (16, 32, 32), 10, 64)
    written = write_feature_shard(
        ShardKey("c" * 64, 10**6, "validation", 10**6),
        np.arange(64),
        np.ones((64, 16, 32, 32), np.float32),
        np.ones((64, 10), np.float32),
        np.zeros(64, np.int64),
        codec,
    )
    assert len(written) <= big.max_bytes <= len(written) + MAX_HEADER_BYTES


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_diverged_device_does_not_write_shards(value: Any) -> None:
    features, logits, labels = content()
    with pytest.raises(CodecError, match="diverged"):
        write_feature_shard(KEY, SAMPLE_IDS, np.full_like(features, value), logits, labels, "fp32")
    with pytest.raises(ShardError, match="diverged"):
        write_feature_shard(KEY, SAMPLE_IDS, features, np.full_like(logits, value), labels, "fp32")


# --- soft labels by sample


@given(st.permutations(range(4)), st.integers(0, 4))
def test_soft_labels_are_looked_up_by_sample_in_any_order(order: list[int], num: int) -> None:
    soft = SoftLabels(SAMPLE_IDS, content()[1])
    rows = np.array(order[:num], np.intp)
    assert np.array_equal(soft.for_samples(SAMPLE_IDS[rows]), content()[1][rows])


def test_a_sample_may_be_asked_for_twice() -> None:
    soft = SoftLabels(SAMPLE_IDS, content()[1])
    assert np.array_equal(soft.for_samples(np.array([5, 5, 11])), content()[1][[3, 3, 0]])


@pytest.mark.parametrize("missing", [-1, 6, 1000])
def test_a_sample_without_a_soft_label_is_named(missing: int) -> None:
    soft = SoftLabels(SAMPLE_IDS, content()[1])
    with pytest.raises(ShardError, match=rf"no soft labels came for 1 samples, first \[{missing}\]"):
        soft.for_samples(np.array([4, missing, 5]))


def test_no_soft_labels_at_all() -> None:
    none = SoftLabels(np.empty(0, np.int64), np.empty((0, CLASSES), np.float32))
    with pytest.raises(ShardError, match="for 2 samples"):
        none.for_samples(np.array([1, 2]))
    for soft in (none, SoftLabels(SAMPLE_IDS, content()[1])):
        assert soft.for_samples(np.empty(0, np.int64)).shape == (0, CLASSES)


# --- memory-mapped shards


def _memory_of(array: NDArray[Any]) -> object:
    """What an array is a view of, in the end."""
    owner: object = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    return owner.obj if isinstance(owner, memoryview) else owner


def test_a_mapped_shard_is_read_from_disk_when_asked(tmp_path: Path) -> None:
    big = ShardSpec("fp32", (16, 64, 64), 10, 64)
    features = np.random.default_rng(0).random((64, 16, 64, 64), np.float32)
    path = tmp_path / "shard"
    path.write_bytes(
        write_feature_shard(
            KEY, np.arange(64), features, np.zeros((64, 10), np.float32), np.zeros(64, np.int64), "fp32"
        )
    )
    tracemalloc.start()
    try:
        shard = map_feature_shard(path, KEY, big)
        assert np.array_equal(shard.features(np.array([7, 63, 0])), features[[7, 63, 0]])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(_memory_of(shard.encoded.values), mmap.mmap)
    assert not shard.encoded.values.flags.writeable
    # Three rows are 0.8 MB, twice while they are decoded; the shard is 16.8 MB.
    assert peak < 3e6


@pytest.mark.parametrize("codec", CODECS)
def test_a_mapped_shard_is_the_shard_in_memory(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "shard"
    path.write_bytes(shard_bytes(codec))
    mapped = map_feature_shard(path, KEY, spec(codec))
    read = read_feature_shard(shard_bytes(codec), KEY, spec(codec))
    assert np.array_equal(mapped.features(), read.features())
    assert np.array_equal(mapped.client_logits, read.client_logits)
    assert np.array_equal(mapped.labels, read.labels)
    assert np.array_equal(mapped.sample_ids, read.sample_ids)


@pytest.mark.parametrize("written", [None, b"", b"abc", shard_bytes()[:-1], shard_bytes("fp16")])
def test_a_stored_file_that_is_not_the_shard_is_refused(tmp_path: Path, written: bytes | None) -> None:
    path = tmp_path / "shard"
    if written is not None:
        path.write_bytes(written)
    with pytest.raises(ShardError):
        map_feature_shard(path, KEY, spec("fp32"))


def test_equal_shards_may_be_stored_by_many_threads_at_once(tmp_path: Path) -> None:
    path, data = tmp_path / "shards" / "shard", shard_bytes()
    failures: list[OSError] = []

    def store() -> None:
        try:
            for _ in range(20):
                write_atomically(path, data)
        except OSError as error:
            failures.append(error)

    threads = [threading.Thread(target=store) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert path.read_bytes() == data
    assert [file.name for file in path.parent.iterdir()] == ["shard"]


def test_the_feature_of_black_comes_where_the_run_crops_features_and_nowhere_else() -> None:
    features, logits, labels = content()
    black = np.array([0.25, 3.0], np.float32)
    written = write_feature_shard(KEY, SAMPLE_IDS, features, logits, labels, "uint8", black)
    crops = spec("uint8", has_outside=True)
    assert len(written) <= crops.max_bytes
    outside = read_feature_shard(written, KEY, crops).outside
    assert outside is not None and np.array_equal(outside, black)
    with pytest.raises(ShardError, match="features_outside"):
        read_feature_shard(written, KEY, spec("uint8"))
    with pytest.raises(ShardError, match="features_outside"):
        read_feature_shard(shard_bytes("uint8"), KEY, crops)
    assert read_feature_shard(shard_bytes("uint8"), KEY, spec("uint8")).outside is None
    with pytest.raises(ShardError, match="NaN or infinity"):
        write_feature_shard(KEY, SAMPLE_IDS, features, logits, labels, "uint8", black * np.float32(np.nan))
    place = written.index(black.tobytes())
    spoilt = written[:place] + np.full(2, np.inf, np.float32).tobytes() + written[place + 8 :]
    with pytest.raises(ShardError, match="features_outside hold NaN or infinity"):
        read_feature_shard(spoilt, KEY, crops)
