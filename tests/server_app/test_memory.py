"""Batches of a new run follow from the bundle's memory, and what its machine cannot hold is refused."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest

from gkt_core.bundle import machine_memory
from gkt_core.bundle.manifest import load_bundle, write_manifest
from gkt_core.bundle.memory import TRAINER, MemoryNeed, MemoryPlan
from gkt_core.config.run_config import RunConfig
from gkt_core.errors import ConfigError
from server_app.cli import memory, serve
from server_app.cli.options import ServeOptions
from server_app.cli.serve import new_config

pytest_plugins = ["tests.server_app.server_fixtures"]

# 20 images on a device and 30 in the trainer, one more counted as the rest of an epoch.
NEEDS = {"portable": MemoryNeed(90_000_000, 10_000_000), TRAINER: MemoryNeed(900_000_000, 100_000_000)}


@pytest.fixture
def artifacts(server_bundle: Path, tmp_path: Path) -> Path:
    """A bundle whose manifest tells other needs."""
    shutil.copytree(server_bundle, tmp_path / "artifacts")
    return with_memory(tmp_path / "artifacts", MemoryPlan(NEEDS, "portable", 300, 4000))


def with_memory(folder: Path, plan: MemoryPlan | None) -> Path:
    manifest = load_bundle(folder).manifest
    write_manifest(folder, dataclasses.replace(manifest, memory=plan))
    return folder


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is said when a run begins, on a machine of 16 GB."""
    lines: list[str] = []
    monkeypatch.setattr(serve, "_announce", lines.append)
    monkeypatch.setattr(memory, "machine_bytes", lambda: 16_000_000_000)
    return lines


def sizes(artifacts: Path, given: dict[str, Any] | None = None, **options: Any) -> tuple[int, int]:
    config = new_config(ServeOptions(data_dir=artifacts.parent / "run", **options), artifacts, given or {})
    return config.batch_size, config.server_batch_size


def test_batches_fit_and_it_is_said(artifacts: Path, said: list[str]) -> None:
    assert sizes(artifacts) == (20, 30)
    device, trainer = said
    assert device.startswith("a device has batches of 20 instead of 64 images of 8 px, as 300 MB hold")
    assert trainer.startswith("the trainer has batches of 30 instead of 64 images of 8 px, as 4,000 MB hold")


def test_what_is_given_wins_and_is_told_what_it_takes(artifacts: Path, said: list[str]) -> None:
    assert sizes(artifacts, {"batch_size": 8, "server_batch_size": 90}) == (8, 90)
    (trainer,) = said
    assert trainer.startswith("the trainer takes 10,000 MB by estimate with batches of 90 images of 8 px")
    assert trainer.endswith("the bundle was exported for 4,000: --server-batch-size 30 fits")
    said.clear()
    (artifacts.parent / "run.toml").write_text("batch_size = 100\nserver_batch_size = 10\n")
    assert sizes(artifacts, config_file=artifacts.parent / "run.toml") == (100, 10)
    assert [line[:30] for line in said] == ["a device takes 1,100 MB by est"]


@pytest.mark.parametrize(("given", "num_procs"), [({"server_batch_size": 160}, 1), ({}, 16)])
def test_a_trainer_that_its_machine_cannot_hold_is_refused(
    artifacts: Path, said: list[str], given: dict[str, int], num_procs: int
) -> None:
    """It would be killed, and started again, and killed again."""
    with pytest.raises(
        ConfigError, match=r"the trainer needs 1[67],\d00 MB .* this machine has 16,000: give"
    ):
        sizes(artifacts, given, num_procs=num_procs)
    # Elsewhere, by torchrun, is another machine.
    sizes(artifacts, given, num_procs=0)


def test_on_a_gpu_the_trainers_batch_is_the_usual_one(artifacts: Path, said: list[str]) -> None:
    assert sizes(artifacts, device="cuda") == (20, 64)
    assert len(said) == 1


def test_a_bundle_of_an_earlier_version_has_the_usual_batches(artifacts: Path, said: list[str]) -> None:
    usual = RunConfig()
    assert sizes(with_memory(artifacts, None)) == (usual.batch_size, usual.server_batch_size)
    assert said == []


def test_a_real_bundle_of_small_images_has_the_usual_batches(server_bundle: Path, said: list[str]) -> None:
    assert sizes(server_bundle) == (64, 64) and said == []


def test_a_containers_limit_is_the_machines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine_memory, "_CONTAINER_LIMIT", tmp_path / "memory.max")
    monkeypatch.setattr(machine_memory, "_CONTAINER_TAKEN", tmp_path / "memory.current")
    whole = machine_memory.machine_bytes()
    assert whole > 10**8
    (tmp_path / "memory.max").write_text("max\n")
    assert machine_memory.machine_bytes() == whole
    (tmp_path / "memory.max").write_text("50000000\n")
    assert machine_memory.machine_bytes() == 50_000_000
    (tmp_path / "memory.current").write_text("20000000\n")
    assert machine_memory.free_bytes() == 30_000_000
