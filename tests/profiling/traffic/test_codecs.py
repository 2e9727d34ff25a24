"""``gkt profile codecs``: real features, whose bytes are those of the wire, and the page of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gkt_core.errors import ConfigError
from profiling.frame.registry import measurement
from profiling.traffic.codecs.measure import measure_codecs
from profiling.traffic.codecs.options import CodecsOptions


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    options = CodecsOptions(
        networks=("resnet8", "resnet8-8x8x8"), codecs=("uint4", "uint1"), limit=200, epochs=1, num_images=96
    )
    return measure_codecs(options, lambda line: None)


def test_coded_levels_take_less_than_zstandard_and_fewer_bits_less_again(document: dict[str, Any]) -> None:
    by_name = {(each["network"], each["codec"]): each for each in document["codings"]}
    assert len(by_name) == 4
    for each in by_name.values():
        assert each["levels_bytes"] <= each["zstd_bytes"]
        assert min(each["encode_mbps"], each["decode_mbps"], each["zstd_encode_mbps"]) > 0
    stem = by_name["resnet8", "uint4"]
    assert stem["levels_bytes"] < 0.9 * stem["zstd_bytes"]
    for network in document["shapes"]:
        few, many = by_name[network, "uint1"], by_name[network, "uint4"]
        assert few["levels_bytes"] < many["levels_bytes"]
        assert few["feature_error"] > many["feature_error"] > 0
        assert 4 * few["packed_bytes"] == many["packed_bytes"]


def test_the_tables_show_every_coding(document: dict[str, Any]) -> None:
    whole = {"settings": {"shard_samples": 64, "repeats": 3}, **document}
    (section,) = measurement("codecs").sections(json.loads(json.dumps(whole)))
    assert [tuple(row[:2]) for row in section.rows] == [
        ("resnet8, 16x16x16", "uint4"),
        ("resnet8, 16x16x16", "uint1"),
        ("resnet8-8x8x8, 8x4x4", "uint4"),
        ("resnet8-8x8x8, 8x4x4", "uint1"),
    ]


def test_options_are_checked() -> None:
    with pytest.raises(ConfigError, match="--images"):
        CodecsOptions(num_images=0)
    with pytest.raises(ConfigError, match="--codec"):
        CodecsOptions(codecs=("uint8",))
    assert CodecsOptions().data_root == Path("data")
