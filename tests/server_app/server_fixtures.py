"""What the tests of server and devices share: one small artifact bundle, run settings, private data.

Tests of other packages say ``pytest_plugins = ["tests.server_app.server_fixtures"]`` and import the functions
as well: PYTEST_DONT_REWRITE keeps pytest from warning about it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_export import ExportOptions, export_bundle
from gkt_core.config.run_config import RunConfig
from gkt_core.data.private_data import PrivateData, Samples
from gkt_core.wire.credentials import OPERATOR, Bearer
from gkt_core.wire.shards import ShardKey, write_feature_shard
from server_app import RunContext, create_run, open_run, run_folder
from server_app.store import RunStore
from tests.conftest import shared_folder

IMAGE_SIZE, NUM_CLASSES = 8, 3
FEATURE_SHAPE = (16, IMAGE_SIZE, IMAGE_SIZE)
CLIENTS = ("client-a", "client-b")
TOKEN = "a-token-of-the-tests"
OPERATOR_SECRET = "an-operators-secret-of-the-tests"


@pytest.fixture(scope="session")
def server_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported bundle for images of 8x8 and 3 classes."""
    options = ExportOptions(image_size=IMAGE_SIZE, num_classes=NUM_CLASSES)

    def export(folder: Path) -> None:
        export_bundle(options, folder / "artifacts")

    return shared_folder(tmp_path_factory, "served", export) / "artifacts"


@pytest.fixture(scope="session")
def narrow_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the tap resnet8-16x8x8, 16x2x2 of images of 8 pixels, which promises devices 4 bits."""

    def export(folder: Path) -> None:
        options = ExportOptions("resnet8-16x8x8", num_classes=NUM_CLASSES, image_size=8, max_bits=4)
        export_bundle(options, folder / "artifacts", verify="none")

    return shared_folder(tmp_path_factory, "narrow", export) / "artifacts"


@pytest.fixture(scope="session")
def empty_run(server_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of 2 devices and 2 rounds that nobody joined: to be copied, never opened.

    Copies have the same run id, so that what they train can be compared byte by byte.
    """
    folder = tmp_path_factory.mktemp("runs") / "run"
    # With rates and an average that change with every step: one too many or too few shows in the bytes.
    create_run(
        folder, server_bundle, run_config(lr_schedule="one_cycle", server_ema=0.9), TOKEN
    ).store.close()
    return folder


@contextlib.contextmanager
def closing_runs() -> Iterator[None]:
    """Close the runs that commands open in this process, as the end of theirs would."""
    opened: list[RunContext] = []

    def noted(folder: Path) -> RunContext:
        opened.append(open_run(folder))
        return opened[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_folder, "open_run", noted)
        yield
    for run in opened:
        run.store.close()


def open_store(path: Path) -> RunStore:
    """The store of a run that is there."""
    store = RunStore.open(path)
    assert store is not None
    return store


def operator() -> str:
    """What an operator shows a server of the tests."""
    return Bearer(OPERATOR, "", OPERATOR_SECRET).text()


def run_config(**changes: Any) -> RunConfig:
    """Settings of a run that takes a second or two."""
    return RunConfig(
        **{
            "num_clients": len(CLIENTS),
            "rounds": 2,
            "server_epochs": 1,
            "batch_size": 4,
            "server_batch_size": 8,
            "crop_padding": 1,
            "codec": "uint8",
            "shard_samples": 8,
            **changes,
        }
    )


def private_data(seed: int, num_train: int = 12, num_validation: int = 5) -> PrivateData:
    """Random images with random labels; ids do not begin at 0 and have gaps."""
    rng = np.random.default_rng(seed)

    def samples(num: int, first_id: int) -> Samples:
        return Samples(
            rng.integers(0, 256, (num, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8),
            rng.integers(0, NUM_CLASSES, num),
            first_id + 3 * np.arange(num),
        )

    return PrivateData(samples(num_train, 5), samples(num_validation, 1000), ("ant", "bee", "cat"))


def shard_bytes(key: ShardKey, num: int, *, first_id: int = 0, codec: str = "uint8", seed: int = 0) -> bytes:
    """A valid feature shard of ``num`` samples with ids from ``first_id``."""
    rng = np.random.default_rng((seed, key.index, key.round_num))
    return write_feature_shard(
        key,
        first_id + np.arange(num, dtype=np.int64),
        rng.random((num, *FEATURE_SHAPE), dtype=np.float32),
        rng.normal(size=(num, NUM_CLASSES)).astype(np.float32),
        rng.integers(0, NUM_CLASSES, num),
        codec,
    )
