"""RunConfig: every field validated by name, read from TOML, frozen."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gkt_core.config.run_config import (
    AUTO,
    BATCH_MIXING,
    CODECS,
    DIRECTIONS,
    EDGE_OPTIMIZERS,
    FEATURE_AUGMENTATIONS,
    LR_SCHEDULES,
    MODES,
    PRECISIONS,
    SERVER_OPTIMIZERS,
    SOFT_LABEL_SOURCES,
    TEACHER_VIEWS,
    RunConfig,
    check_image_size,
)
from gkt_core.errors import ConfigError

NAN, INF = float("nan"), float("inf")
AT_LEAST_1 = {"accepted": [1, 10**6], "refused": [0, -1], "expected": "at least 1"}
AT_LEAST_2 = {"accepted": [2, 512], "refused": [1, 0, -64], "expected": "at least 2"}
POSITIVE = {
    "accepted": [1e-9, 0.5, 100.0],
    "refused": [0.0, -0.1, NAN, INF, -INF],
    "expected": "above 0",
}
NOT_NEGATIVE = {
    "accepted": [0.0, 1e-4, 7.0],
    "refused": [-1e-9, NAN, INF, -INF],
    "expected": "at least 0",
}
RULES: dict[str, dict[str, Any]] = {
    "num_clients": AT_LEAST_1,
    "rounds": AT_LEAST_1,
    "local_epochs": AT_LEAST_1,
    "server_epochs": AT_LEAST_1,
    "shard_samples": AT_LEAST_1,
    "batch_size": AT_LEAST_2,
    "server_batch_size": AT_LEAST_2,
    "edge_lr": POSITIVE,
    "server_lr": POSITIVE,
    "temperature": POSITIVE,
    "alpha": NOT_NEGATIVE,
    "weight_decay": NOT_NEGATIVE,
    "crop_padding": {"accepted": [0, 4, 64], "refused": [-1, 65], "expected": "0 to 64"},
    "seed": {"accepted": [0, 2**63 - 1], "refused": [-1, 2**63], "expected": f"0 to {2**63 - 1}"},
    "direction": {
        "accepted": DIRECTIONS,
        "refused": ["", "S2E", "e2s"],
        "expected": "one of none, s2e, both",
    },
    "codec": {
        "accepted": CODECS,
        "refused": ["", "fp64", "FP32"],
        "expected": "one of fp32, fp16, uint8, uint4, uint3, uint2, uint1",
    },
    "soft_labels": {
        "accepted": SOFT_LABEL_SOURCES,
        "refused": ["", "last"],
        "expected": "one of last_epoch, evaluation",
    },
    "server_optimizer": {"accepted": SERVER_OPTIMIZERS, "refused": ["lion"], "expected": "one of adam, sgd"},
    "batch_mixing": {"accepted": BATCH_MIXING, "refused": ["both"], "expected": "one of mixed, by_client"},
    "teacher_view": {"accepted": TEACHER_VIEWS, "refused": ["new"], "expected": "one of reused, fresh"},
    "momentum": {"accepted": [0.1, 0.9], "refused": [0.0, 1.0, -1.0], "expected": "above 0 and below 1"},
    "plateau_factor": {"accepted": [0.5], "refused": [0.0, 1.0], "expected": "above 0 and below 1"},
    "plateau_patience": {"accepted": [0, 3], "refused": [-1], "expected": "at least 0"},
    "horizontal_flip": {"accepted": [True, False], "refused": [], "expected": ""},
    "leakage_penalty": {
        "accepted": [0.0, 0.3, 1000.0],
        "refused": [-0.1, 1001.0, NAN],
        "expected": "0 to 1000",
    },
    "share_extractor": {
        "accepted": ["never", "every", "rounds=1,4"],
        "refused": ["", "always", "rounds=", "rounds=0", "drift=0.1"],
        "expected": "never, every or rounds=1,4,16 (rounds from 1)",
    },
    "compress": {"accepted": [True, False], "refused": [], "expected": ""},
    "quarantine": {"accepted": [True, False], "refused": [], "expected": ""},
    "mode": {"accepted": MODES, "refused": ["fedbuff"], "expected": "one of sync, async"},
    "max_staleness": {"accepted": [0, 3], "refused": [-1], "expected": "at least 0"},
    "client_fraction": {
        "accepted": [0.1, 1.0],
        "refused": [0.0, 1.1, NAN],
        "expected": "above 0 and at most 1",
    },
    "edge_optimizer": {
        "accepted": EDGE_OPTIMIZERS,
        "refused": ["lion"],
        "expected": "one of adam, adamw, sgd",
    },
    "edge_weight_decay": {
        "accepted": [0.0, 1e-4],
        "refused": [-1e-4, NAN],
        "expected": "at least 0",
    },
    "edge_amsgrad": {"accepted": [True, False], "refused": [], "expected": ""},
    "server_amsgrad": {"accepted": [True, False], "refused": [], "expected": ""},
    "nesterov": {"accepted": [True, False], "refused": [], "expected": ""},
    "lr_schedule": {
        "accepted": LR_SCHEDULES,
        "refused": ["step"],
        "expected": f"one of {', '.join(LR_SCHEDULES)}",
    },
    "lr_warmup": {"accepted": [0.0, 0.3], "refused": [-0.1, 1.0, NAN], "expected": "at least 0 and below 1"},
    "feature_augmentation": {
        "accepted": FEATURE_AUGMENTATIONS,
        "refused": ["rotate"],
        "expected": f"one of {', '.join(FEATURE_AUGMENTATIONS)}",
    },
    "uploads": {
        "accepted": ["every", "rounds=1,4,16", "drift=0.2"],
        "refused": ["never", "rounds=0", "drift=0"],
        "expected": "every, rounds=1,4,16 (rounds from 1) or drift=0.1 (above 0)",
    },
    "shared_init": {"accepted": [True, False], "refused": [], "expected": ""},
    "precision": {
        "accepted": (*PRECISIONS, AUTO),
        "refused": ["fp16"],
        "expected": "one of fp32, bf16, auto",
    },
    "decay_norms": {"accepted": [True, False], "refused": [], "expected": ""},
    "label_smoothing": {"accepted": [0.0, 0.1], "refused": [-0.1, 1.0], "expected": "at least 0 and below 1"},
    "server_ema": {"accepted": [0.0, 0.999], "refused": [-0.1, 1.0], "expected": "at least 0 and below 1"},
}
WRONG_TYPES: dict[type, list[Any]] = {
    int: [True, 1.0, "1", None, [1]],
    float: [True, "0.1", None, [0.1], 2**63, 10**400],
    str: [1, None, b"s2e", ["s2e"]],
    bool: [0, 1, "true", None],
}
WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
FIELDS = {field.name: type(field.default) for field in dataclasses.fields(RunConfig)}


FLOATS = [name for name, kind in FIELDS.items() if kind is float]
FRACTIONS = ("momentum", "plateau_factor", "lr_warmup", "label_smoothing", "server_ema")


def cases(kind: str) -> list[tuple[str, Any]]:
    return [(name, value) for name, rule in RULES.items() for value in rule[kind]]


def message_of(**values: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        RunConfig(**values)
    return str(caught.value)


def test_every_field_has_a_rule() -> None:
    assert set(RULES) == set(FIELDS)


@pytest.mark.parametrize(("name", "value"), cases("accepted"))
def test_accepted(name: str, value: Any) -> None:
    found = getattr(RunConfig(**{name: value}), name)
    assert found == value
    assert type(found) is FIELDS[name]


@pytest.mark.parametrize(("name", "value"), cases("refused"))
def test_refused(name: str, value: Any) -> None:
    finite = "" if not isinstance(value, float) or math.isfinite(value) else "a finite number, "
    assert message_of(**{name: value}) == f"{name} is {value!r}, expected {finite}{RULES[name]['expected']}"


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, t in FIELDS.items() for v in WRONG_TYPES[t]])
def test_wrong_type(name: str, value: Any) -> None:
    assert message_of(**{name: value}) == f"{name} is {value!r}, expected {WORDS[FIELDS[name]]}"


@pytest.mark.parametrize("name", [name for name in FLOATS if name not in FRACTIONS])
def test_a_whole_number_is_a_float(name: str) -> None:
    given: dict[str, Any] = {name: 1}
    as_float: dict[str, Any] = {name: 1.0}
    config = RunConfig(**given)
    assert type(getattr(config, name)) is float
    assert config == RunConfig(**as_float)


def test_the_defaults_are_the_papers() -> None:
    config = RunConfig()
    assert (config.local_epochs, config.server_epochs) == (1, 20)
    assert config.temperature == 3.0
    assert config.crop_padding == 4
    assert config.horizontal_flip


@pytest.mark.parametrize(
    ("direction", "edge", "server"), [("none", False, False), ("s2e", True, False), ("both", True, True)]
)
def test_who_distils(direction: str, edge: bool, server: bool) -> None:
    config = RunConfig(direction=direction)
    assert (config.edge_distils, config.server_distils) == (edge, server)


@pytest.mark.parametrize("name", list(FIELDS))
def test_frozen(name: str) -> None:
    config = RunConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, name, getattr(config, name))


@given(
    st.fixed_dictionaries(
        {},
        optional={name: st.sampled_from(list(rule["accepted"])) for name, rule in RULES.items()},
    )
)
def test_to_dict_and_from_dict_are_inverse_also_through_json(values: dict[str, Any]) -> None:
    config = RunConfig(**values)
    assert RunConfig.from_dict(config.to_dict()) == config
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert {name: config.to_dict()[name] for name in values} == values


def test_unknown_keys_are_named_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="unknown keys epochs, lr; known are alpha, batch_mixing") as caught:
        RunConfig.from_dict({"rounds": 1, "lr": 0.1, "epochs": 2})
    assert all(name in str(caught.value) for name in FIELDS)


def test_a_run_file(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('rounds = 12\nedge_lr = 0.01\nalpha = 2\ncodec = "uint8"\ncompress = false\n')
    assert RunConfig.from_toml(path) == RunConfig(
        rounds=12, edge_lr=0.01, alpha=2.0, codec="uint8", compress=False
    )
    path.write_text("")
    assert RunConfig.from_toml(path) == RunConfig()


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"rounds =", "is not valid TOML"),
        (b"rounds = 1\nrounds = 2", "is not valid TOML"),
        (b"rounds: 1", "is not valid TOML"),
        (b"\xff\xfe", "cannot read the run file"),
        (b"rounds = 0", "rounds is 0, expected at least 1"),
        (b"rounds = 1.5", "rounds is 1.5, expected a whole number"),
        (b"rounds = true", "rounds is True, expected a whole number"),
        (b'edge_lr = "0.1"', "edge_lr is '0.1', expected a number"),
        (b"edge_lr = nan", "edge_lr is nan, expected a finite number, above 0"),
        (b"alpha = -1", "alpha is -1.0, expected at least 0"),
        (b"edges = 1", "unknown keys edges"),
        (b"[rounds]\nnumber = 1", "rounds is {'number': 1}, expected a whole number"),
    ],
)
def test_a_run_file_that_is_wrong_is_named(tmp_path: Path, content: bytes, match: str) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_toml(path)
    assert str(path) in str(caught.value)
    assert match in str(caught.value)


def test_a_run_file_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(ConfigError, match="cannot read the run file"):
            RunConfig.from_toml(path)


@pytest.mark.parametrize("size", [8, 12, 16, 32, 224, 256])
def test_image_sizes_that_two_strides_can_halve(size: int) -> None:
    check_image_size(size)


@pytest.mark.parametrize("size", [-4, 0, 4, 7, 9, 30, 33, 257, 260, 10**9])
def test_image_sizes_that_they_cannot(size: int) -> None:
    with pytest.raises(ConfigError, match=f"image size is {size}, expected a multiple of 4 from 8 to 256"):
        check_image_size(size)
