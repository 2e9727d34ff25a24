"""A round in TypeScript ends where Python's ends: the same batches, the same parameters, the same shards."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from numpy.typing import NDArray

from edge_runtime.engines.portable import PortableEngine
from gkt_core.bundle.manifest import load_bundle
from gkt_core.bundle.onnx_runtime import onnxruntime_module
from gkt_core.data.private_data import save_private_data
from gkt_core.rounds.client_part import ClientPart
from gkt_core.rounds.client_round import client_update
from gkt_core.rounds.client_shards import shards
from gkt_core.wire.shard_file import parse
from gkt_core.wire.shards import SoftLabels, write_soft_labels
from tests.conftest import LONGEST_SECONDS
from tests.edge_runtime.javascript.node_package import DIST, run_node
from tests.server_app.server_fixtures import NUM_CLASSES, private_data, run_config

CLIENT = "client-a"
CONFIG = run_config(
    num_clients=1, local_epochs=3, codec="fp32", lr_schedule="one_cycle", feature_augmentation="crop"
)
# Of two versions of ONNX Runtime: rounding differs, and grows from step to step; of losses and features, the
# largest; of parameters, their length.
FEATURES_APART, PARAMETERS_APART = 1e-2, 1e-2


@pytest.fixture(scope="module")
def inputs(server_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A device's file, settings and soft labels of its first round."""
    folder = tmp_path_factory.mktemp("rounds")
    data = private_data(3, num_train=29)
    save_private_data(folder / "device.npz", data)
    (folder / "config.json").write_text(json.dumps(CONFIG.told()))
    logits = np.random.default_rng(5).normal(size=(29, NUM_CLASSES)).astype(np.float32)
    answer = write_soft_labels(CLIENT, 1, SoftLabels(data.train.sample_ids, logits))
    (folder / "soft").write_bytes(answer)
    return folder


def in_python(bundle: Path) -> Iterator[tuple[str, Any]]:
    """The states, the shards and the progress of two rounds."""
    data = private_data(3, num_train=29)
    part = ClientPart(CLIENT, data, CONFIG, NUM_CLASSES)
    logits = np.random.default_rng(5).normal(size=(29, NUM_CLASSES)).astype(np.float32)
    engine = PortableEngine(load_bundle(bundle))
    for round_num in (1, 2):
        teacher = None if round_num == 1 else SoftLabels(data.train.sample_ids, logits)
        yield f"progress-{round_num}", client_update(engine, part, teacher, round_num)
        yield f"state-{round_num}", engine.parameters()
        for split in ("train", "validation"):
            for shard in shards(engine, part, round_num, split):
                yield f"{round_num}-{split}-{shard.key.index}", shard.encode(part)


def in_node(bundle: Path, inputs: Path, out: Path, *other: Path) -> list[dict[str, Any]]:
    script = DIST / "tests" / "rounds.js"
    files = [inputs / name for name in ("device.npz", "config.json", "soft")]
    done = run_node(script, bundle, *files, out, *other)
    assert done.returncode == 0, done.stderr
    progress: list[dict[str, Any]] = json.loads(done.stdout)
    return progress


def state_of(bundle: Path, path: Path) -> dict[str, NDArray[np.float32]]:
    return load_bundle(bundle).manifest.portable_layout().tensors(safetensors.numpy.load_file(path))


def test_two_rounds_are_pythons_within_rounding(
    gkt_edge: list[str], server_bundle: Path, inputs: Path, tmp_path: Path
) -> None:
    progress = in_node(server_bundle, inputs, tmp_path)
    for name, expected in in_python(server_bundle):
        if name.startswith("progress"):
            found = progress[int(name[-1]) - 1]
            assert (found["num_steps"], found["num_seen"]) == (expected.num_steps, expected.num_seen)
            assert found["total_loss"] == pytest.approx(expected.total_loss, rel=1e-3)
        elif name.startswith("state"):
            state = state_of(server_bundle, tmp_path / name)
            assert state.keys() == expected.keys()
            apart = sum(float(((state[key] - value) ** 2).sum()) for key, value in expected.items())
            size = sum(float((value**2).sum()) for value in expected.values())
            assert (apart / size) ** 0.5 < PARAMETERS_APART
        else:
            same_shard((tmp_path / name).read_bytes(), expected)


def same_shard(found: bytes, expected: bytes) -> None:
    """The same header, ids and labels; features and logits within rounding."""
    (ours, about), (theirs, said) = parse(found), parse(expected)
    assert about == said and len(found) == len(expected) and list(ours) == list(theirs)
    for name, value in theirs.items():
        if value.dtype == np.int64:
            assert np.array_equal(ours[name], value), name
        else:
            assert float(np.abs(ours[name] - value).max()) < FEATURES_APART, name


@pytest.mark.slow
def test_with_the_same_onnx_runtime_every_byte_is_pythons(
    gkt_edge: list[str], server_bundle: Path, inputs: Path, tmp_path: Path
) -> None:
    """It installs the version of npm's package that Python has here."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "package.json").write_text("{}")
    wanted = f"onnxruntime-node@{onnxruntime_module().__version__}"
    install = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", wanted]
    environment = {**os.environ, "ONNXRUNTIME_NODE_INSTALL_CUDA": "skip"}
    subprocess.run(
        install, cwd=other, env=environment, check=True, capture_output=True, timeout=LONGEST_SECONDS
    )
    progress = in_node(server_bundle, inputs, tmp_path / "out", other)
    for name, expected in in_python(server_bundle):
        if name.startswith("progress"):
            found = progress[int(name[-1]) - 1]
            assert found["total_loss"] == expected.total_loss and found["num_right"] == expected.num_right
        elif name.startswith("state"):
            state = state_of(server_bundle, tmp_path / "out" / name)
            assert all(np.array_equal(state[key], value) for key, value in expected.items())
        else:
            assert (tmp_path / "out" / name).read_bytes() == expected, name
