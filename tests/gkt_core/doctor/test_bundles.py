"""Bundles that are not whole, and steps that take more memory than there is."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from gkt_core.bundle import machine_memory
from gkt_core.bundle.manifest import PORTABLE, TRAIN_STEP, load_bundle, write_manifest
from gkt_core.bundle.memory import TRAINER, MemoryNeed, MemoryPlan
from gkt_core.doctor.bundles import bundle, judged_memory, memory, usual_config
from gkt_core.doctor.findings import FINE, SKIPPED, WRONG
from gkt_core.errors import ArtifactError
from tests.gkt_core.doctor.looking import looked, states, the_one

pytest_plugins = ["tests.server_app.server_fixtures"]


@pytest.fixture
def artifacts(server_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(server_bundle, tmp_path / "artifacts"))


def test_a_whole_one(artifacts: Path) -> None:
    (said,) = looked(bundle, artifacts=artifacts)
    assert said.state == FINE and "3 classes, 8 px, for portable and ort-training" in said.text


def test_a_changed_file_and_a_missing_one(artifacts: Path) -> None:
    step = (artifacts / TRAIN_STEP).read_bytes()
    (artifacts / TRAIN_STEP).write_bytes(step[:-1] + bytes([step[-1] ^ 1]))
    with pytest.raises(ArtifactError, match="is not the file of the manifest"):
        looked(bundle, artifacts=artifacts)
    (artifacts / TRAIN_STEP).unlink()
    with pytest.raises(ArtifactError, match="cannot be read: export or download"):
        looked(bundle, artifacts=artifacts)


def test_a_devices_bundle_is_that_of_its_engine(artifacts: Path, tmp_path: Path) -> None:
    assert looked(bundle, state_dir=tmp_path / "state") == []
    (tmp_path / "state").mkdir()
    own = artifacts.rename(tmp_path / "state" / "bundle")
    opened = load_bundle(own)
    for name in set(opened.manifest.files) - set(opened.manifest.engine_files(PORTABLE)):
        (own / name).unlink()
    assert states(looked(bundle, state_dir=tmp_path / "state")) == [FINE]
    (own / TRAIN_STEP).unlink()
    with pytest.raises(ArtifactError):
        looked(bundle, state_dir=tmp_path / "state")


def test_more_memory_than_is_free(artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert states(looked(memory, artifacts=artifacts)) == [FINE, FINE]
    (tmp_path / "max").write_text("400000000")
    (tmp_path / "current").write_text("380000000")
    monkeypatch.setattr(machine_memory, "_CONTAINER_LIMIT", tmp_path / "max")
    monkeypatch.setattr(machine_memory, "_CONTAINER_TAKEN", tmp_path / "current")
    device, trainer = looked(memory, artifacts=artifacts)
    assert (device.state, trainer.state) == (WRONG, WRONG)
    assert "a device (portable) takes" in device.text and ", 20 are free" in device.text
    assert "the trainer takes" in trainer.text


def test_which_batch_would_fit(artifacts: Path) -> None:
    needs = {PORTABLE: MemoryNeed(90_000_000, 10_000_000), TRAINER: MemoryNeed(900_000_000, 100_000_000)}
    manifest = dataclasses.replace(
        load_bundle(artifacts).manifest, memory=MemoryPlan(needs, PORTABLE, 5000, 20_000)
    )
    config = usual_config(manifest)
    device, trainer = judged_memory(manifest, config, [PORTABLE, TRAINER], free=1_500_000_000)
    assert device.state == FINE
    assert "with batches of 64, 1,500 are free" in trainer.text
    assert trainer.remedy == "end other programs, or begin the run with gkt serve --server-batch-size 5"
    (none,) = judged_memory(manifest, config, [TRAINER], free=950_000_000)
    assert "--model resnet8-stride4" in none.remedy


def test_a_bundle_without_an_estimate_says_so(artifacts: Path) -> None:
    write_manifest(artifacts, dataclasses.replace(load_bundle(artifacts).manifest, memory=None))
    assert states(looked(memory, artifacts=artifacts)) == [SKIPPED]
    assert "no memory" in looked(memory, artifacts=artifacts)[0].text


def test_nothing_is_said_without_a_bundle() -> None:
    assert looked(bundle) == looked(memory) == []


def test_what_is_not_fine_says_what_to_do(artifacts: Path) -> None:
    assert the_one(
        judged_memory(
            load_bundle(artifacts).manifest, usual_config(load_bundle(artifacts).manifest), [TRAINER], 1
        ),
        WRONG,
    )
