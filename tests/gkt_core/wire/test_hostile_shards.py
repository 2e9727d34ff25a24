"""Hostile shards: every way in which bytes can be no shard of this run is one named error."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gkt_core.config.run_config import CODECS
from gkt_core.errors import ShardError
from gkt_core.wire.shard_file import MAX_HEADER_BYTES
from gkt_core.wire.shards import read_feature_shard, read_soft_labels
from tests.gkt_core.wire.shard_content import (
    CLASSES,
    KEY,
    SHAPE,
    content,
    shard_bytes,
    soft_label_bytes,
    spec,
)


def taken_apart(data: bytes) -> tuple[dict[str, Any], bytes]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def put_together(header: Any, payload: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + payload


def from_tensors(tensors: dict[str, tuple[str, NDArray[Any]]], metadata: dict[str, Any]) -> bytes:
    """A well-formed file of any tensors: ``{name: (dtype, array)}``."""
    header: dict[str, Any] = {"__metadata__": {"gkt": json.dumps(metadata)}}
    payload = b""
    for name, (dtype, array) in tensors.items():
        raw = array.tobytes()
        header[name] = {
            "dtype": dtype,
            "shape": list(array.shape),
            "data_offsets": [len(payload), len(payload) + len(raw)],
        }
        payload += raw
    return put_together(header, payload)


def metadata(codec: str = "fp32", **changes: Any) -> dict[str, Any]:
    return {"version": 1, "kind": "features", "codec": codec, **KEY.metadata(), **changes}


def tensors(num: int = 4, **changes: tuple[str, NDArray[Any]]) -> dict[str, tuple[str, NDArray[Any]]]:
    """The tensors of a valid fp32 shard, some of them replaced."""
    features, logits, labels = content()
    rows = np.arange(num) % 4
    valid: dict[str, tuple[str, NDArray[Any]]] = {
        "sample_ids": ("I64", np.arange(num, dtype=np.int64)),
        "features": ("F32", features[rows]),
        "features_scale": ("F32", np.ones(2, np.float32)),
        "features_offset": ("F32", np.zeros(2, np.float32)),
        "client_logits": ("F32", logits[rows]),
        "labels": ("I64", labels[rows]),
    }
    return {**valid, **changes}


def refuse(data: bytes, match: str, codec: str = "fp32", **changes: Any) -> None:
    with pytest.raises(ShardError, match=match):
        read_feature_shard(data, KEY, spec(codec, **changes))


def test_the_files_of_these_tests_are_valid_before_they_are_spoilt() -> None:
    read_feature_shard(from_tensors(tensors(), metadata()), KEY, spec("fp32"))
    read_feature_shard(put_together(*taken_apart(shard_bytes())), KEY, spec("fp32"))


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 100, -200, -1])
def test_cut_short(length: int) -> None:
    refuse(shard_bytes()[:length], "cut short|header|outside|tensors")


def test_cut_short_anywhere() -> None:
    whole = shard_bytes("uint4")
    for length in range(len(whole)):
        with pytest.raises(ShardError):
            read_feature_shard(whole[:length], KEY, spec("uint4"))


@pytest.mark.parametrize("length", [MAX_HEADER_BYTES + 1, 2**31, 2**63 - 1, 2**63, 2**64 - 1])
def test_header_length_huge(length: int) -> None:
    refuse(length.to_bytes(8, "little") + shard_bytes()[8:], "the header says")


def test_header_larger_than_ours_may_be() -> None:
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
def test_header_that_is_none(header: Any) -> None:
    refuse(put_together(header, b""), "not that of a gkt shard")


def test_missing_metadata() -> None:
    header, payload = taken_apart(shard_bytes())
    del header["__metadata__"]
    refuse(put_together(header, payload), "not that of a gkt shard")


@pytest.mark.parametrize("name", ["version", "kind", "codec", "client_id", "round_num", "split", "index"])
def test_metadata_that_lacks_a_name(name: str) -> None:
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
def test_metadata_of_another_shard(name: str, value: Any) -> None:
    refuse(from_tensors(tensors(), metadata(**{name: value})), f"the shard says {name} .*, expected")


@pytest.mark.parametrize("codec", CODECS)
def test_the_same_shard_under_another_codec(codec: str) -> None:
    for other in set(CODECS) - {codec}:
        refuse(shard_bytes(codec), "the shard says codec", codec=other)
        forged, payload = taken_apart(shard_bytes(codec))
        forged["__metadata__"]["gkt"] = json.dumps(metadata(other))
        refuse(put_together(forged, payload), "features is .*this run expects", codec=other)


@pytest.mark.parametrize("name", list(tensors()))
@pytest.mark.parametrize(
    ("code", "dtype"), [("F16", np.float16), ("U8", np.uint8), ("I64", np.int64), ("F32", np.float32)]
)
def test_wrong_dtype(name: str, code: Any, dtype: Any) -> None:
    right, array = tensors()[name]
    if right == code:
        code, dtype = "U8", np.uint8
    changed = tensors() | {name: (code, np.ones(array.shape, dtype))}
    refuse(from_tensors(changed, metadata()), f"{name} is")


@pytest.mark.parametrize("code", ["F64", "BF16", "BOOL", "O", "f32", "", None, 3, ["F32"], {}])
def test_a_dtype_that_no_shard_has(code: Any) -> None:
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
def test_wrong_shape(name: str, array: NDArray[Any]) -> None:
    changed = tensors() | {name: (tensors()[name][0], array)}
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
def test_a_tensor_that_is_none_or_lies_outside(entry: Any) -> None:
    header, payload = taken_apart(shard_bytes())
    whole = header["labels"]
    header["labels"] = {**whole, **entry} if isinstance(entry, dict) and entry else entry
    refuse(put_together(header, payload), "no valid dtype|lies outside|is empty")


def test_overlapping_tensors_with_a_gap_that_hides_them() -> None:
    # The labels read the sample ids' bytes; the sum of all lengths is still the payload's.
    header, payload = taken_apart(
        from_tensors(tensors(sample_ids=("I64", np.array([0, 1, 2, 3]))), metadata())
    )
    header["labels"]["data_offsets"] = header["sample_ids"]["data_offsets"]
    refuse(put_together(header, payload), "overlap or leave a gap")


def test_partly_overlapping_tensors() -> None:
    header, payload = taken_apart(from_tensors(tensors(), metadata()))
    begin, end = header["labels"]["data_offsets"]
    header["labels"]["data_offsets"] = [begin - 8, end - 8]
    refuse(put_together(header, payload), "overlap or leave a gap")


@pytest.mark.parametrize("first", list(tensors()))
def test_a_gap_before_a_tensor(first: str) -> None:
    header, payload = taken_apart(from_tensors(tensors(), metadata()))
    gap = header[first]["data_offsets"][0]
    for name in tensors():
        begin, end = header[name]["data_offsets"]
        if begin >= gap:
            header[name]["data_offsets"] = [begin + 8, end + 8]
    refuse(put_together(header, payload[:gap] + bytes(8) + payload[gap:]), "overlap or leave a gap")


@pytest.mark.parametrize("more", [1, 8, 5000])
def test_trailing_bytes(more: int) -> None:
    refuse(shard_bytes() + bytes(more), "bytes of tensors, of which the header names")


@pytest.mark.parametrize("name", ["more", "", "\ud800", "labels2"])
def test_an_extra_tensor(name: str) -> None:
    extra = {**tensors(), name: ("I64", np.arange(4))}
    refuse(from_tensors(extra, metadata()), "this run expects")


@pytest.mark.parametrize("name", list(tensors()))
def test_a_missing_tensor(name: str) -> None:
    fewer = {key: value for key, value in tensors().items() if key != name}
    refuse(from_tensors(fewer, metadata()), "this run expects|sample_ids is missing")


def test_duplicate_sample_ids() -> None:
    same = tensors(sample_ids=("I64", np.array([3, 1, 2, 3])))
    refuse(from_tensors(same, metadata()), "sample_ids are not unique")


def test_zero_samples() -> None:
    refuse(from_tensors(tensors(num=0), metadata()), "is empty")


def test_too_many_samples() -> None:
    read_feature_shard(from_tensors(tensors(num=8), metadata()), KEY, spec("fp32"))
    refuse(from_tensors(tensors(num=9), metadata()), "the shard holds 9 samples, expected 1 to 8")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["features", "client_logits", "features_scale", "features_offset"])
def test_values_that_are_not_finite(name: str, value: Any) -> None:
    array = tensors()[name][1].copy()
    array.flat[-1] = value
    refuse(from_tensors(tensors() | {name: ("F32", array)}, metadata()), "NaN or infinity")


def test_fp16_features_that_are_not_finite() -> None:
    array = np.full((4, *SHAPE), np.nan, np.float16)
    hostile = from_tensors(tensors(features=("F16", array)), metadata("fp16"))
    refuse(hostile, "features hold NaN", codec="fp16")


@pytest.mark.parametrize("scale", [0.0, -1.0])
def test_scales_that_are_not_positive(scale: float) -> None:
    array = np.array([1, scale], np.float32)
    refuse(from_tensors(tensors(features_scale=("F32", array)), metadata()), "not positive")


@pytest.mark.parametrize("label", [-1, CLASSES, 2**63 - 1, -(2**63)])
def test_labels_outside_the_classes(label: int) -> None:
    hostile = tensors(labels=("I64", np.array([0, 1, label, 2])))
    refuse(from_tensors(hostile, metadata()), f"labels hold {label}, this run expects 0 to 4")


def test_a_shard_of_another_run() -> None:
    refuse(shard_bytes(), "this run expects", feature_shape=(2, 4, 8))
    refuse(shard_bytes(), "this run expects", num_classes=6)
    refuse(shard_bytes(), "expected 1 to 3", max_samples=3)


def test_soft_labels_of_another_round_device_or_run() -> None:
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
def test_soft_labels_that_are_wrong(ids: NDArray[Any], logits: NDArray[Any], match: str) -> None:
    code = "F16" if logits.dtype == np.float16 else "F32"
    data = from_tensors(
        {"sample_ids": ("I64", ids), "server_logits": (code, logits)},
        {"version": 1, "kind": "soft_labels", "client_id": "client-000", "round_num": 3},
    )
    with pytest.raises(ShardError, match=match):
        read_soft_labels(data, "client-000", 3, CLASSES)


def read_or_refuse(data: bytes, codec: str) -> bool:
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
@settings(max_examples=200)
def test_any_bytes_changed(codec: str, data: st.DataObject) -> None:
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
@settings(max_examples=300)
def test_any_header(name: str, part: str | None, value: Any) -> None:
    header, payload = taken_apart(shard_bytes("uint8"))
    if part is None:
        header[name] = value
    else:
        header[name][part] = value
    read_or_refuse(put_together(header, payload), "uint8")


@given(st.binary(max_size=200))
def test_any_bytes_at_all(data: bytes) -> None:
    assert not read_or_refuse(data, "fp32")
