"""Frames of levels: the very shard comes out, for ever the same bytes, and every spoilt one is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gkt_core.config.run_config import CODEC_BITS, CODECS, PACKED_CODECS
from gkt_core.errors import ShardError
from gkt_core.wire.compression import compress
from gkt_core.wire.levels.coder import encode_levels
from gkt_core.wire.levels.frame import LevelFeatures, read_frame, write_frame
from gkt_core.wire.levels.packing import symbols_of
from gkt_core.wire.levels.transport import FrameOfLevels, level_features, wire_body
from gkt_core.wire.shard_file import parse
from gkt_core.wire.shards import ShardKey, ShardSpec, read_feature_shard, write_feature_shard
from tests.gkt_core.wire.levels.level_content import smooth_levels

KEY = ShardKey("client-000", 3, "train", 7)
SHAPE = (4, 8, 8)
CLASSES = 5
# Frames of fixed shards, and their packed levels; SHA-256 of what the coder makes of those.
GOLDEN = Path(__file__).parent / "golden"
WORDS = {
    "uint4": "5c4eb44c25b503f1fbfda591a02223d996ed326d1920bc54bbe4ad537bb1f459",
    "uint3": "b1c9e7f805a0f249cff27e55daaf73884c95f235b0c0d7f50d7fa49f57350541",
    "uint2": "274c6ecbffd0ab592227353467b79a77e89f68a392756f98b2581a5f7782e541",
    "uint1": "600679ded66e465291164b04d8ac69073d3092040d1a98c5742042c6e86331f1",
}


def spec(codec: str, **changes: Any) -> ShardSpec:
    values: dict[str, Any] = {
        "codec": codec,
        "feature_shape": SHAPE,
        "num_classes": CLASSES,
        "max_samples": 8,
    }
    return ShardSpec(**values | changes)


def levels_of(codec: str, shape: tuple[int, int, int] = SHAPE) -> LevelFeatures:
    levels = level_features(codec, shape)
    assert levels is not None
    return levels


def shard(codec: str, num: int = 6, classes: int = CLASSES, seed: int = 0) -> bytes:
    features = smooth_levels(CODEC_BITS[codec], SHAPE, num, seed).astype(np.float32)
    logits = np.arange(num * classes, dtype=np.float32).reshape(num, classes) % np.float32(7)
    return write_feature_shard(KEY, np.arange(num), features, logits, np.arange(num) % classes, codec)


def frame(codec: str, num: int = 6, **changes: Any) -> bytes:
    written, levels = shard(codec, num, **changes), levels_of(codec)
    whole = np.frombuffer(written, np.uint8)
    begin = parse(whole)[0]["features"].ctypes.data - whole.ctypes.data
    return write_frame(written, begin, num, levels)


@pytest.mark.parametrize("codec", PACKED_CODECS)
@given(num=st.integers(1, 8), classes=st.sampled_from([2, 10, 300]), seed=st.integers(0, 2**32))
@settings(max_examples=15)
def test_the_very_shard_comes_out(codec: str, num: int, classes: int, seed: int) -> None:
    written = shard(codec, num, classes, seed)
    most = spec(codec, num_classes=classes).max_bytes
    body = frame(codec, num, classes=classes, seed=seed)
    assert read_frame(body, levels_of(codec), most) == written
    read_feature_shard(written, KEY, spec(codec, num_classes=classes))


@pytest.mark.parametrize("codec", PACKED_CODECS)
def test_pieces_of_any_size_give_the_shard(codec: str) -> None:
    body, frames = frame(codec), FrameOfLevels(levels_of(codec), spec(codec).max_bytes)
    out = b"".join(
        piece for begin in range(0, len(body), 7) for piece in frames.feed(body[begin : begin + 7])
    )
    assert out + frames.finish() == shard(codec)


@pytest.mark.parametrize("codec", PACKED_CODECS)
def test_frames_of_earlier_versions_are_read_for_ever(codec: str) -> None:
    body = (GOLDEN / f"{codec}.frame").read_bytes()
    assert read_frame(body, levels_of(codec), spec(codec).max_bytes) == shard(codec)


@pytest.mark.parametrize("codec", PACKED_CODECS)
def test_equal_levels_are_equal_words_for_ever(codec: str) -> None:
    """But for the rest, of which another Zstandard may make other bytes, a frame follows from its shard."""
    levels = levels_of(codec)
    packed = np.frombuffer((GOLDEN / f"{codec}.levels").read_bytes(), np.uint8)
    layout = levels.layout
    assert layout is not None
    begins = (np.arange(6 * layout.lanes) * 9973).astype(np.uint16)
    coded = encode_levels(symbols_of(packed, levels.bits), layout, begins)
    parts = (coded.table, coded.coded.states.astype("<u4"), coded.coded.words.astype("<u2"))
    assert hashlib.sha256(b"".join(each.tobytes() for each in parts)).hexdigest() == WORDS[codec]


def test_a_frame_is_smaller_than_zstandard_makes_the_shard() -> None:
    for codec in PACKED_CODECS:
        took, before = len(frame(codec, num=256)), len(compress(shard(codec, num=256)))
        assert took < 0.95 * before, codec


@pytest.mark.parametrize("codec", PACKED_CODECS)
def test_a_shard_travels_as_what_is_smaller(codec: str) -> None:
    few, many = (wire_body(shard(codec, num), levels_of(codec), compressed=True) for num in (2, 600))
    assert (few.encoding, many.encoding) == ("zstd", "gkt-levels")
    assert few.data == compress(shard(codec, 2))
    assert many.data == frame(codec, 600)
    assert many.headers["X-Content-SHA256"] == hashlib.sha256(many.data).hexdigest()


@pytest.mark.parametrize("codec", [codec for codec in CODECS if codec not in PACKED_CODECS])
def test_other_codecs_travel_as_they_did(codec: str) -> None:
    assert level_features(codec, SHAPE) is None
    body = wire_body(b"a shard", None, compressed=True)
    assert (body.data, body.encoding) == (compress(b"a shard"), "zstd")
    assert wire_body(b"a shard", None, compressed=False).data == b"a shard"


def test_a_run_that_does_not_compress_sends_shards_as_they_are() -> None:
    body = wire_body(shard("uint2"), levels_of("uint2"), compressed=False)
    assert (body.data, body.encoding) == (shard("uint2"), "")


# --- frames that are none


def refuse(body: bytes, match: str, codec: str = "uint4", **changes: Any) -> None:
    with pytest.raises(ShardError, match=match):
        read_frame(body, levels_of(codec), spec(codec, **changes).max_bytes)


@pytest.mark.parametrize("codec", PACKED_CODECS)
def test_cut_short_anywhere(codec: str) -> None:
    whole = frame(codec)
    for length in (*range(0, len(whole), 7), len(whole) - 1):
        with pytest.raises(ShardError):
            read_frame(whole[:length], levels_of(codec), spec(codec).max_bytes)


@pytest.mark.parametrize("codec", PACKED_CODECS)
def test_any_byte_changed_is_refused_or_is_another_shard_of_the_same_size(codec: str) -> None:
    whole, written, most = frame(codec), shard(codec), spec(codec).max_bytes
    for place in (*range(48), *range(48, len(whole), 5)):
        spoilt = bytearray(whole)
        spoilt[place] ^= 0x55
        try:
            out = read_frame(bytes(spoilt), levels_of(codec), most)
        except ShardError:
            continue
        # The server hashes the body before it looks into it; what is decoded stays within its bounds.
        assert len(out) <= most
        assert out != written or place >= 36


@given(data=st.data())
@settings(max_examples=200)
def test_any_bytes_are_a_shard_or_refused_by_name(data: st.DataObject) -> None:
    numbers = data.draw(st.lists(st.integers(0, 2**32 - 1), min_size=8, max_size=8))
    known = (6, *SHAPE)
    numbers[:4] = [
        data.draw(st.sampled_from([each, wild])) for each, wild in zip(known, numbers, strict=False)
    ]
    head = b"GKLV" + bytes([1, 4, data.draw(st.integers(0, 255)), 0]) + struct.pack("<8I", *numbers)
    body = head + data.draw(st.binary(max_size=300))
    with pytest.raises(ShardError):
        read_frame(body, levels_of("uint4"), spec("uint4").max_bytes)


def changed(place: int, form: str, *values: Any, codec: str = "uint4") -> bytes:
    body = bytearray(frame(codec))
    struct.pack_into(form, body, place, *values)
    return bytes(body)


@pytest.mark.parametrize(
    ("place", "form", "values", "match"),
    [
        (0, "4s", (b"GKLX",), "no frame of levels"),
        (4, "B", (2,), "version 2.0, this server reads 1.0"),
        (7, "B", (1,), "version 1.1"),
        (5, "B", (3,), "3 bits and 4x8x8, this run expects 4 bits and 4x8x8"),
        (12, "I", (8,), "8x8x8, this run expects 4 bits and 4x8x8"),
        (16, "II", (2**32 - 1, 2**32 - 1), "4294967295x4294967295"),
        (6, "B", (9,), "the way 9, expected 0 to 3"),
        (8, "I", (0,), "levels of 0 samples"),
        (8, "I", (2**32 - 1,), "levels of 4294967295 samples, a shard of this run holds 1 to"),
        (24, "I", (2**32 - 1,), "its head says"),
        (28, "I", (2**32 - 1,), "its head says"),
        (32, "I", (2**32 - 1,), "its head says"),
        (36, "I", (2**32 - 1,), "levels begin at byte 4294967295"),
        (40, "4s", (b"zstd",), "no Zstandard frame"),
    ],
)
def test_heads_that_are_none(place: int, form: str, values: tuple[Any, ...], match: str) -> None:
    refuse(changed(place, "<" + form, *values), match)


def test_a_rest_that_becomes_more_than_a_shard_can_be() -> None:
    levels = levels_of("uint4")
    written = shard("uint4")
    most = spec("uint4").max_bytes
    padded = written + bytes(most)
    begin = len(written) - 6 * levels.sample_bytes
    body = write_frame(padded, begin, 6, levels)
    assert len(body) < most
    refuse(body, "decompresses to more than")


def test_an_endless_body_is_not_kept() -> None:
    frames, most = FrameOfLevels(levels_of("uint4"), 1000), 2000
    list(frames.feed(bytes(most)))
    with pytest.raises(ShardError, match="more than 2000 bytes"):
        frames.feed(b"\0")


def test_features_that_cannot_be_coded_are_said_to_be() -> None:
    odd = LevelFeatures(4, (1, 3, 3))
    with pytest.raises(ShardError, match="send them as they are"):
        write_frame(shard("uint4"), 0, 1, odd)
    head = struct.pack("<4sBBBB8I", b"GKLV", 1, 4, 0, 0, 1, 1, 3, 3, 0, 0, 0, 0)
    with pytest.raises(ShardError, match="send them as they are"):
        read_frame(head, odd, 1000)
    assert level_features("uint4", (1, 3, 3)) is None
    assert dataclasses.replace(odd, feature_shape=(1, 2, 4)).layout is not None
