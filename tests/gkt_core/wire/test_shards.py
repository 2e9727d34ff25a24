"""Shards: equal content is equal bytes, and every way a shard can be wrong is one named error."""

import hashlib
import json
import mmap
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gkt_core.config.run_config import CODECS
from gkt_core.errors import CodecError, ShardError
from gkt_core.files import write_atomically
from gkt_core.wire.codec import decode, encode
from gkt_core.wire.shards import (
    MAX_HEADER_BYTES,
    ShardKey,
    ShardSpec,
    SoftLabels,
    map_feature_shard,
    read_feature_shard,
    read_soft_labels,
    write_feature_shard,
    write_soft_labels,
)

KEY = ShardKey("client-000", 3, "train", 7)
SHAPE = (2, 4, 4)
CLASSES = 5
SAMPLE_IDS = np.array([11, 4, 900, 5], np.int64)
# Changes only when the format does; then SHARD_VERSION must change too.
GOLDEN = {
    "fp32": "ad2e0549a2dd8e69882e8fbbeee6b285e9769638d9733a9488fd8d8fded5d6b9",
    "fp16": "e80be510fa648806fee7ddfe6d9464c59d02bb0fdd5276c584a59c34d10e6f50",
    "uint8": "17913bf9db7ae2792736cca58c916da1aec390854f36526d544061d397d020ef",
    "uint4": "919b1b6c24a8655daf04f9e164f2ce55a44dfb03a26d09076b2d1d8d140c1acc",
    "soft_labels": "4692659db89efc9a71506f916ab91beb397cb2a4cc34c4cee64ddf09e2ad527f",
}


def spec(codec, **changes):
    return ShardSpec(
        **{"codec": codec, "feature_shape": SHAPE, "num_classes": CLASSES, "max_samples": 8, **changes}
    )


def content():
    """Features, logits and labels that every machine computes to the same bits."""
    features = (np.arange(4 * 32, dtype=np.float32).reshape(4, *SHAPE) % 17) / 4
    logits = np.arange(4 * CLASSES, dtype=np.float32).reshape(4, CLASSES) / 8 - 1
    return features, logits, np.array([0, 4, 2, 2], np.int64)


def shard_bytes(codec="fp32", key=KEY, sample_ids=SAMPLE_IDS):
    features, logits, labels = content()
    return write_feature_shard(key, sample_ids, features, logits, labels, codec)


def soft_label_bytes(sample_ids=SAMPLE_IDS):
    return write_soft_labels("client-000", 3, SoftLabels(sample_ids, content()[1]))


def digests():
    """SHA-256 of each fixed shard; also called in a fresh process."""
    made = {codec: shard_bytes(codec) for codec in CODECS} | {"soft_labels": soft_label_bytes()}
    return {name: hashlib.sha256(data).hexdigest() for name, data in made.items()}


# --- what is written can be read


@pytest.mark.parametrize("codec", CODECS)
def test_a_shard_is_read_as_it_was_written(codec):
    features, logits, labels = content()
    shard = read_feature_shard(shard_bytes(codec), KEY, spec(codec))
    assert np.array_equal(shard.sample_ids, SAMPLE_IDS)
    assert np.array_equal(shard.labels, labels)
    assert np.array_equal(shard.client_logits, logits)
    assert np.array_equal(shard.features(), decode(encode(features, codec), SHAPE))
    assert np.abs(shard.features() - features).max() <= {"uint8": 1 / 120, "uint4": 1 / 7}.get(codec, 0)


@pytest.mark.parametrize("codec", CODECS)
@given(data=st.data())
@settings(deadline=None, max_examples=25)
def test_any_shard_is_read_as_it_was_written(codec, data):
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


def test_the_order_of_samples_is_kept_so_that_rows_belong_together():
    shard = read_feature_shard(shard_bytes(), KEY, spec("fp32"))
    place = shard.sample_ids.tolist().index(900)
    features, logits, labels = content()
    assert np.array_equal(shard.features(slice(place, place + 1))[0], features[2])
    assert np.array_equal(shard.client_logits[place], logits[2])
    assert shard.labels[place] == labels[2]


def test_soft_labels_are_read_as_they_were_written():
    read = read_soft_labels(soft_label_bytes(), "client-000", 3, CLASSES)
    assert np.array_equal(read.sample_ids, SAMPLE_IDS)
    assert np.array_equal(read.server_logits, content()[1])


def test_equal_content_is_equal_bytes_for_ever():
    assert digests() == GOLDEN


def test_equal_content_is_equal_bytes_in_another_process():
    code = "import json, test_shards; print(json.dumps(test_shards.digests()))"
    fresh = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=True,
        timeout=240,
    )
    assert json.loads(fresh.stdout) == GOLDEN


def test_a_shard_does_not_depend_on_how_its_arrays_lie_in_memory():
    features, logits, labels = content()
    strided = np.ascontiguousarray(features.transpose(3, 2, 1, 0)).transpose(3, 2, 1, 0)
    written = write_feature_shard(
        KEY, SAMPLE_IDS.astype(np.int32), strided, np.asfortranarray(logits), labels.astype(np.uint8), "fp32"
    )
    assert written == shard_bytes("fp32")


@pytest.mark.parametrize("codec", CODECS)
def test_max_bytes_holds_the_largest_shard_and_little_more(codec):
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
def test_a_diverged_device_does_not_write_shards(value):
    features, logits, labels = content()
    with pytest.raises(CodecError, match="diverged"):
        write_feature_shard(KEY, SAMPLE_IDS, np.full_like(features, value), logits, labels, "fp32")
    with pytest.raises(ShardError, match="diverged"):
        write_feature_shard(KEY, SAMPLE_IDS, features, np.full_like(logits, value), labels, "fp32")


# --- soft labels by sample


@given(st.permutations(range(4)), st.integers(0, 4))
def test_soft_labels_are_looked_up_by_sample_in_any_order(order, num):
    soft = SoftLabels(SAMPLE_IDS, content()[1])
    rows = np.array(order[:num], np.intp)
    assert np.array_equal(soft.for_samples(SAMPLE_IDS[rows]), content()[1][rows])


def test_a_sample_may_be_asked_for_twice():
    soft = SoftLabels(SAMPLE_IDS, content()[1])
    assert np.array_equal(soft.for_samples(np.array([5, 5, 11])), content()[1][[3, 3, 0]])


@pytest.mark.parametrize("missing", [-1, 6, 1000])
def test_a_sample_without_a_soft_label_is_named(missing):
    soft = SoftLabels(SAMPLE_IDS, content()[1])
    with pytest.raises(ShardError, match=rf"no soft labels came for 1 samples, first \[{missing}\]"):
        soft.for_samples(np.array([4, missing, 5]))


def test_no_soft_labels_at_all():
    none = SoftLabels(np.empty(0, np.int64), np.empty((0, CLASSES), np.float32))
    with pytest.raises(ShardError, match="for 2 samples"):
        none.for_samples(np.array([1, 2]))
    for soft in (none, SoftLabels(SAMPLE_IDS, content()[1])):
        assert soft.for_samples(np.empty(0, np.int64)).shape == (0, CLASSES)


# --- memory-mapped shards


def _memory_of(array):
    """What an array is a view of, in the end."""
    while isinstance(array, np.ndarray):
        array = array.base
    return array.obj if isinstance(array, memoryview) else array


def test_a_mapped_shard_is_read_from_disk_when_asked(tmp_path):
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
def test_a_mapped_shard_is_the_shard_in_memory(tmp_path, codec):
    path = tmp_path / "shard"
    path.write_bytes(shard_bytes(codec))
    mapped = map_feature_shard(path, KEY, spec(codec))
    read = read_feature_shard(shard_bytes(codec), KEY, spec(codec))
    assert np.array_equal(mapped.features(), read.features())
    assert np.array_equal(mapped.client_logits, read.client_logits)
    assert np.array_equal(mapped.labels, read.labels)
    assert np.array_equal(mapped.sample_ids, read.sample_ids)


@pytest.mark.parametrize("written", [None, b"", b"abc", shard_bytes()[:-1], shard_bytes("fp16")])
def test_a_stored_file_that_is_not_the_shard_is_refused(tmp_path, written):
    path = tmp_path / "shard"
    if written is not None:
        path.write_bytes(written)
    with pytest.raises(ShardError):
        map_feature_shard(path, KEY, spec("fp32"))


def test_equal_shards_may_be_stored_by_many_threads_at_once(tmp_path):
    path, data = tmp_path / "shards" / "shard", shard_bytes()
    failures = []

    def store():
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


# --- hostile bytes: one test a way


def taken_apart(data):
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def put_together(header, payload):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + payload


def from_tensors(tensors, metadata):
    """A well-formed file of any tensors: ``{name: (dtype, array)}``."""
    header, payload = {"__metadata__": {"gkt": json.dumps(metadata)}}, b""
    for name, (dtype, array) in tensors.items():
        raw = array.tobytes()
        header[name] = {
            "dtype": dtype,
            "shape": list(array.shape),
            "data_offsets": [len(payload), len(payload) + len(raw)],
        }
        payload += raw
    return put_together(header, payload)


def metadata(codec="fp32", **changes):
    return {"version": 1, "kind": "features", "codec": codec, **KEY.metadata(), **changes}


def tensors(num=4, **changes):
    """The tensors of a valid fp32 shard, some of them replaced."""
    features, logits, labels = content()
    rows = np.arange(num) % 4
    valid = {
        "sample_ids": ("I64", np.arange(num, dtype=np.int64)),
        "features": ("F32", features[rows]),
        "features_scale": ("F32", np.ones(2, np.float32)),
        "features_offset": ("F32", np.zeros(2, np.float32)),
        "client_logits": ("F32", logits[rows]),
        "labels": ("I64", labels[rows]),
    }
    return {**valid, **changes}


def refuse(data, match, codec="fp32", **changes):
    with pytest.raises(ShardError, match=match):
        read_feature_shard(data, KEY, spec(codec, **changes))


def test_the_files_of_these_tests_are_valid_before_they_are_spoilt():
    read_feature_shard(from_tensors(tensors(), metadata()), KEY, spec("fp32"))
    read_feature_shard(put_together(*taken_apart(shard_bytes())), KEY, spec("fp32"))


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 100, -200, -1])
def test_cut_short(length):
    refuse(shard_bytes()[:length], "cut short|header|outside|tensors")


def test_cut_short_anywhere():
    whole = shard_bytes("uint4")
    for length in range(len(whole)):
        with pytest.raises(ShardError):
            read_feature_shard(whole[:length], KEY, spec("uint4"))


@pytest.mark.parametrize("length", [MAX_HEADER_BYTES + 1, 2**31, 2**63 - 1, 2**63, 2**64 - 1])
def test_header_length_huge(length):
    refuse(length.to_bytes(8, "little") + shard_bytes()[8:], "the header says")


def test_header_larger_than_ours_may_be():
    header, payload = taken_apart(shard_bytes())
    header["__metadata__"]["padding"] = "x" * MAX_HEADER_BYTES
    refuse(put_together(header, payload), "the header says")


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"not json",
        b"{",
        b"\xff\xfe{}",
        b"[]",
        b"null",
        b"7",
        b'"text"',
        b"{}",
        b"[" * 8000,
        b'{"a":' * 3000,
        b"1" * 5000,
        b'{"__metadata__": null}',
        b'{"__metadata__": []}',
        b'{"__metadata__": {}}',
        b'{"__metadata__": {"gkt": 5}}',
        b'{"__metadata__": {"gkt": "not json"}}',
        b'{"__metadata__": {"gkt": "[]"}}',
        b'{"__metadata__": {"gkt": "null"}}',
        json.dumps({"__metadata__": {"gkt": "[" * 8000}}).encode(),
    ],
    ids=lambda header: header[:24].decode("latin1"),
)
def test_header_that_is_none(header):
    refuse(put_together(header, b""), "not that of a gkt shard")


def test_missing_metadata():
    header, payload = taken_apart(shard_bytes())
    del header["__metadata__"]
    refuse(put_together(header, payload), "not that of a gkt shard")


@pytest.mark.parametrize("name", ["version", "kind", "codec", "client_id", "round_num", "split", "index"])
def test_metadata_that_lacks_a_name(name):
    lacking = {key: value for key, value in metadata().items() if key != name}
    refuse(from_tensors(tensors(), lacking), f"the shard says {name} 'None'")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("version", 2),
        ("version", True),
        ("version", 1.0),
        ("kind", "soft_labels"),
        ("codec", "fp16"),
        ("codec", ["fp32"]),
        ("client_id", "client-001"),
        ("client_id", None),
        ("round_num", 2),
        ("round_num", 3.0),
        ("round_num", "3"),
        ("split", "validation"),
        ("index", 8),
        ("index", {}),
    ],
)
def test_metadata_of_another_shard(name, value):
    refuse(from_tensors(tensors(), metadata(**{name: value})), f"the shard says {name} .*, expected")


@pytest.mark.parametrize("codec", CODECS)
def test_the_same_shard_under_another_codec(codec):
    for other in set(CODECS) - {codec}:
        refuse(shard_bytes(codec), "the shard says codec", codec=other)
        forged, payload = taken_apart(shard_bytes(codec))
        forged["__metadata__"]["gkt"] = json.dumps(metadata(other))
        refuse(put_together(forged, payload), "features is .*this run expects", codec=other)


@pytest.mark.parametrize("name", list(tensors()))
@pytest.mark.parametrize(
    ("code", "dtype"), [("F16", np.float16), ("U8", np.uint8), ("I64", np.int64), ("F32", np.float32)]
)
def test_wrong_dtype(name, code, dtype):
    right, array = tensors()[name]
    if right == code:
        code, dtype = "U8", np.uint8
    changed = tensors(**{name: (code, np.ones(array.shape, dtype))})
    refuse(from_tensors(changed, metadata()), f"{name} is")


@pytest.mark.parametrize("code", ["F64", "BF16", "BOOL", "O", "f32", "", None, 3, ["F32"], {}])
def test_a_dtype_that_no_shard_has(code):
    header, payload = taken_apart(shard_bytes())
    header["labels"]["dtype"] = code
    refuse(put_together(header, payload), "no valid dtype")


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("features", np.zeros((4, 2, 4, 5), np.float32)),
        ("features", np.zeros((4, 3, 4, 4), np.float32)),
        ("features", np.zeros((3, 2, 4, 4), np.float32)),
        ("features", np.zeros((4, 32), np.float32)),
        ("features_scale", np.ones(3, np.float32)),
        ("features_scale", np.ones((2, 1), np.float32)),
        ("features_offset", np.ones(1, np.float32)),
        ("client_logits", np.zeros((4, 6), np.float32)),
        ("client_logits", np.zeros((5, 5), np.float32)),
        ("client_logits", np.zeros(20, np.float32)),
        ("labels", np.zeros(3, np.int64)),
        ("labels", np.zeros((4, 1), np.int64)),
        ("labels", np.array(0, np.int64)),
        ("sample_ids", np.arange(5)),
        ("sample_ids", np.arange(4).reshape(4, 1)),
        ("sample_ids", np.array(4)),
    ],
    ids=str,
)
def test_wrong_shape(name, array):
    changed = tensors(**{name: (tensors()[name][0], array)})
    refuse(from_tensors(changed, metadata()), "this run expects|sample_ids is missing, or not int64")


@pytest.mark.parametrize(
    "entry",
    [
        None,
        [],
        "F32",
        {},
        {"dtype": "F32"},
        {"shape": 4},
        {"shape": None},
        {"shape": "44"},
        {"shape": {"4": 4}},
        {"shape": [-4]},
        {"shape": [4.0]},
        {"shape": [True, 4]},
        {"shape": [[4]]},
        {"shape": [1, 1, 1, 1, 4]},
        {"shape": [4] * 5000},
        {"shape": [2**64]},
        {"shape": [2**62, 2**62, 2**62]},
        {"shape": [0, 2**70]},
        {"shape": [2**62, 2**62, 0]},
        {"data_offsets": None},
        {"data_offsets": []},
        {"data_offsets": [0]},
        {"data_offsets": [0, 32, 64]},
        {"data_offsets": [32, 0]},
        {"data_offsets": [-32, 0]},
        {"data_offsets": [0.0, 32.0]},
        {"data_offsets": [False, 32]},
        {"data_offsets": ["0", "32"]},
        {"data_offsets": "ab"},
        {"data_offsets": [0, 2**64]},
        {"data_offsets": [10**6, 10**6 + 32]},
        {"shape": [0], "data_offsets": [10**9, 10**9]},
        {"shape": [0, 2**70], "data_offsets": [0, 0]},
        {"shape": [2**62, 2**62, 0], "data_offsets": [0, 0]},
        {"shape": [0], "data_offsets": [0, 0]},
    ],
    ids=lambda entry: str(entry)[:60],
)
def test_a_tensor_that_is_none_or_lies_outside(entry):
    header, payload = taken_apart(shard_bytes())
    whole = header["labels"]
    header["labels"] = {**whole, **entry} if isinstance(entry, dict) and entry else entry
    refuse(put_together(header, payload), "no valid dtype|lies outside|is empty")


def test_overlapping_tensors_with_a_gap_that_hides_them():
    # The labels read the sample ids' bytes; the sum of all lengths is still the payload's.
    header, payload = taken_apart(
        from_tensors(tensors(sample_ids=("I64", np.array([0, 1, 2, 3]))), metadata())
    )
    header["labels"]["data_offsets"] = header["sample_ids"]["data_offsets"]
    refuse(put_together(header, payload), "overlap or leave a gap")


def test_partly_overlapping_tensors():
    header, payload = taken_apart(from_tensors(tensors(), metadata()))
    begin, end = header["labels"]["data_offsets"]
    header["labels"]["data_offsets"] = [begin - 8, end - 8]
    refuse(put_together(header, payload), "overlap or leave a gap")


@pytest.mark.parametrize("first", list(tensors()))
def test_a_gap_before_a_tensor(first):
    header, payload = taken_apart(from_tensors(tensors(), metadata()))
    gap = header[first]["data_offsets"][0]
    for name in tensors():
        begin, end = header[name]["data_offsets"]
        if begin >= gap:
            header[name]["data_offsets"] = [begin + 8, end + 8]
    refuse(put_together(header, payload[:gap] + bytes(8) + payload[gap:]), "overlap or leave a gap")


@pytest.mark.parametrize("more", [1, 8, 5000])
def test_trailing_bytes(more):
    refuse(shard_bytes() + bytes(more), "bytes of tensors, of which the header names")


@pytest.mark.parametrize("name", ["more", "", "\ud800", "labels2"])
def test_an_extra_tensor(name):
    extra = {**tensors(), name: ("I64", np.arange(4))}
    refuse(from_tensors(extra, metadata()), "this run expects")


@pytest.mark.parametrize("name", list(tensors()))
def test_a_missing_tensor(name):
    fewer = {key: value for key, value in tensors().items() if key != name}
    refuse(from_tensors(fewer, metadata()), "this run expects|sample_ids is missing")


def test_duplicate_sample_ids():
    same = tensors(sample_ids=("I64", np.array([3, 1, 2, 3])))
    refuse(from_tensors(same, metadata()), "sample_ids are not unique")


def test_zero_samples():
    refuse(from_tensors(tensors(num=0), metadata()), "is empty")


def test_too_many_samples():
    read_feature_shard(from_tensors(tensors(num=8), metadata()), KEY, spec("fp32"))
    refuse(from_tensors(tensors(num=9), metadata()), "the shard holds 9 samples, expected 1 to 8")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["features", "client_logits", "features_scale", "features_offset"])
def test_values_that_are_not_finite(name, value):
    array = tensors()[name][1].copy()
    array.flat[-1] = value
    refuse(from_tensors(tensors(**{name: ("F32", array)}), metadata()), "NaN or infinity")


def test_fp16_features_that_are_not_finite():
    array = np.full((4, *SHAPE), np.nan, np.float16)
    hostile = from_tensors(tensors(features=("F16", array)), metadata("fp16"))
    refuse(hostile, "features hold NaN", codec="fp16")


@pytest.mark.parametrize("scale", [0.0, -1.0])
def test_scales_that_are_not_positive(scale):
    array = np.array([1, scale], np.float32)
    refuse(from_tensors(tensors(features_scale=("F32", array)), metadata()), "not positive")


@pytest.mark.parametrize("label", [-1, CLASSES, 2**63 - 1, -(2**63)])
def test_labels_outside_the_classes(label):
    hostile = tensors(labels=("I64", np.array([0, 1, label, 2])))
    refuse(from_tensors(hostile, metadata()), f"labels hold {label}, this run expects 0 to 4")


def test_a_shard_of_another_run():
    refuse(shard_bytes(), "this run expects", feature_shape=(2, 4, 8))
    refuse(shard_bytes(), "this run expects", num_classes=6)
    refuse(shard_bytes(), "expected 1 to 3", max_samples=3)


def test_soft_labels_of_another_round_device_or_run():
    data = soft_label_bytes()
    for client_id, round_num, classes in [("client-001", 3, 5), ("client-000", 2, 5), ("client-000", 3, 6)]:
        with pytest.raises(ShardError, match="expect"):
            read_soft_labels(data, client_id, round_num, classes)
    with pytest.raises(ShardError, match="the shard says kind 'features'"):
        read_soft_labels(shard_bytes(), "client-000", 3, CLASSES)
    refuse(data, "the shard says kind 'soft_labels'")


@pytest.mark.parametrize(
    ("ids", "logits", "match"),
    [
        (np.array([1, 1]), np.zeros((2, 5), np.float32), "not unique"),
        (np.array([1, 2]), np.full((2, 5), np.nan, np.float32), "lower server_lr"),
        (np.array([1, 2]), np.zeros((1, 5), np.float32), "this run expects"),
        (np.array([1, 2]), np.zeros((2, 5), np.float16), "this run expects"),
        (np.empty(0, np.int64), np.zeros((0, 5), np.float32), "is empty"),
    ],
    ids=["duplicates", "NaN", "few", "fp16", "none"],
)
def test_soft_labels_that_are_wrong(ids, logits, match):
    code = "F16" if logits.dtype == np.float16 else "F32"
    data = from_tensors(
        {"sample_ids": ("I64", ids), "server_logits": (code, logits)},
        {"version": 1, "kind": "soft_labels", "client_id": "client-000", "round_num": 3},
    )
    with pytest.raises(ShardError, match=match):
        read_soft_labels(data, "client-000", 3, CLASSES)


def read_or_refuse(data, codec):
    """What a server does with bytes from anywhere: a shard that decodes, or the named error."""
    try:
        shard = read_feature_shard(data, KEY, spec(codec))
    except ShardError as error:
        assert str(error)
        return False
    features = shard.features()
    assert features.shape == (len(shard.sample_ids), *SHAPE)
    assert np.isfinite(features).all()
    assert np.isfinite(shard.client_logits).all()
    assert ((shard.labels >= 0) & (shard.labels < CLASSES)).all()
    return True


@pytest.mark.parametrize("codec", CODECS)
@given(data=st.data())
@settings(deadline=None, max_examples=200)
def test_any_bytes_changed(codec, data):
    spoilt = bytearray(shard_bytes(codec))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(spoilt) - 1))
        spoilt[place] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        begin = data.draw(st.integers(0, len(spoilt)))
        spoilt[begin:begin] = data.draw(st.binary(max_size=16))
    read_or_refuse(bytes(spoilt), codec)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 200)
    | st.integers()
    | st.floats()
    | st.sampled_from(["F32", "I64", ""]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets", "gkt"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(
    st.sampled_from(["__metadata__", *tensors()]),
    st.sampled_from([None, "dtype", "shape", "data_offsets", "gkt"]),
    JSON,
)
@settings(deadline=None, max_examples=300)
def test_any_header(name, part, value):
    header, payload = taken_apart(shard_bytes("uint8"))
    if part is None:
        header[name] = value
    else:
        header[name][part] = value
    read_or_refuse(put_together(header, payload), "uint8")


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_any_bytes_at_all(data):
    assert not read_or_refuse(data, "fp32")
