"""Seals: no bit of a sealed file can flip unseen, and files without one are whole if nothing is missing."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from gkt_core.seal import OPEN_SEAL, close_seal, is_whole

OPEN = save({"x": np.arange(5.0)}, metadata={"gkt": json.dumps({"round": 3, **OPEN_SEAL}, sort_keys=True)})
SEALED = close_seal(OPEN)


def test_a_sealed_file_reads_as_before() -> None:
    assert is_whole(SEALED) and len(SEALED) == len(OPEN)
    assert load(SEALED)["x"].tolist() == [0, 1, 2, 3, 4]
    assert close_seal(OPEN) == SEALED, "equal content is equal bytes"


@given(st.integers(0, 8 * len(SEALED) - 1))
def test_every_flipped_bit_is_seen(bit: int) -> None:
    data = bytearray(SEALED)
    data[bit // 8] ^= 1 << bit % 8
    assert not is_whole(bytes(data))


@given(st.integers(0, len(SEALED) - 1))
def test_a_file_that_is_cut_short_is_seen(length: int) -> None:
    assert not is_whole(SEALED[:length])
    assert not is_whole(SEALED[:length] + bytes(len(SEALED) - length))


def test_a_file_of_an_earlier_version_is_taken_for_whole() -> None:
    data = save({"x": np.arange(5.0)}, metadata={"gkt": json.dumps({"round": 3})})
    assert is_whole(data)
    assert not any(is_whole(data[:length]) for length in range(len(data)))
    assert not is_whole(data + b"more")
    with pytest.raises(ValueError, match="no open seal"):
        close_seal(data)
