"""Processes of a run that are killed at random moments: nothing is lost, nothing is left behind."""

from __future__ import annotations

import collections
import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.state.state_dir import StateDir
from gkt_core.config.run_config import RunConfig
from gkt_core.data.private_data import PrivateData, Samples, save_private_data
from gkt_core.errors import ConfigError
from gkt_core.files import remove_leftovers, write_atomically
from gkt_core.wire.protocol import TrainerProgress
from profiling.server.chaos.compare import compare_runs
from profiling.server.chaos.kills import VICTIMS, draw_kills, share_done
from profiling.server.chaos.options import ChaosOptions
from profiling.server.chaos.report import Chaos
from server_app.rounds.state import Phase, RunState
from tests.server_app.server_fixtures import CLIENTS, IMAGE_SIZE, NUM_CLASSES

pytest_plugins = ["tests.server_app.server_fixtures"]


def _private_file(folder: Path, client_id: str, seed: int) -> Path:
    random = np.random.default_rng(seed)

    def samples(num: int, first_id: int) -> Samples:
        images = random.integers(0, 256, (num, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
        return Samples(images, random.integers(0, NUM_CLASSES, num), first_id + np.arange(num))

    file = folder / f"{client_id}.npz"
    save_private_data(file, PrivateData(samples(40, 0), samples(5, 1000), ("ant", "bee", "cat")))
    return file


@pytest.mark.system
def test_a_killed_run_ends_with_the_bytes_of_an_undisturbed_one(server_bundle: Path, tmp_path: Path) -> None:
    """The short version of ``make chaos``."""
    files = [_private_file(tmp_path, client_id, seed) for seed, client_id in enumerate(CLIENTS)]
    config = RunConfig(
        num_clients=2, rounds=2, server_epochs=2, local_epochs=4, batch_size=4, server_batch_size=8,
        crop_padding=1, codec="uint8", shard_samples=8,
    )  # fmt: skip
    lines: list[str] = []
    options = ChaosOptions(num_kills=4, seed=7, rounds=2, limit_seconds=480)
    report = compare_runs(options, config, server_bundle, files, tmp_path / "runs", lines.append)
    assert report["equal"], f"{report['differing']} differ\n" + "\n".join(lines)
    assert Chaos().failures(report) == []
    assert report["hashes"]["undisturbed"].keys() >= {"server checkpoint", "server model", "client-a model"}
    killed = collections.Counter(kill["victim"] for kill in report["kills"])
    assert killed["server"] >= 1 and killed["trainer"] >= 1 and killed["client-a"] + killed["client-b"] >= 1
    assert report["starts"]["server"] == 1 + killed["server"]
    assert all(report["starts"][client_id] == 1 + killed[client_id] for client_id in CLIENTS)
    # Different rounds and devices do differ: the hashes are of something.
    assert len(set(report["hashes"]["disturbed"].values())) == len(report["hashes"]["disturbed"])
    assert report["leftovers"] == []


def test_other_bytes_are_a_failure() -> None:
    (failure,) = Chaos().failures({"differing": ["server model", "client-a model"]})
    assert failure == "the disturbed run left other bytes: server model, client-a model"


def test_kills_are_drawn_from_the_seed_and_hit_every_kind() -> None:
    for seed in range(30):
        kills = draw_kills(5, 4, seed)
        assert kills == draw_kills(5, 4, seed)
        assert {kill.victim for kill in kills[:5]} == set(VICTIMS)
        assert [kill.at for kill in kills] == sorted(kill.at for kill in kills)
        assert all(kill.at <= 0.75 for kill in kills[:5]) and all(kill.at >= 0.75 for kill in kills[5:])
    assert draw_kills(5, 4, 0) != draw_kills(5, 4, 1)


@pytest.mark.parametrize("options", [{"num_kills": 2}, {"rounds": 1}, {"image_size": 9}])
def test_wrong_options(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        ChaosOptions(**options)  # type: ignore[arg-type] # one of them is a path


def test_the_share_of_a_run_that_is_done_only_grows() -> None:
    def at(phase: Phase, round_num: int, reported: tuple[str, ...] = (), epoch: int = 0) -> float:
        state = RunState(2, 2, phase=phase, round_num=round_num, selected=CLIENTS, reported=reported)
        return share_done(state, TrainerProgress(round_num, epoch, 4, 1.0, 1.0) if epoch else None)

    shares = [at(Phase.JOINING, 0)]
    for round_num in (1, 2):
        shares += [at(Phase.COLLECTING, round_num, CLIENTS[:num]) for num in (0, 1)]
        shares += [at(Phase.READY, round_num, CLIENTS), at(Phase.TRAINING, round_num, CLIENTS)]
        shares += [at(Phase.TRAINING, round_num, CLIENTS, epoch) for epoch in (1, 2, 4)]
    shares.append(at(Phase.FINISHED, 2))
    assert all(first <= second for first, second in itertools.pairwise(shares))
    assert (shares[0], shares[-1]) == (0, 1) and len(set(shares)) == 11


def test_unfinished_files_of_killed_processes_go_and_those_of_others_stay(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-S", "-c", ""])
    dead.wait()
    write_atomically(tmp_path / "checkpoints" / "epoch.safetensors", b"whole")
    left = tmp_path / "checkpoints" / f".epoch.safetensors.{dead.pid}.7.tmp"
    kept = [tmp_path / f".blob.{os.getpid()}.7.tmp", tmp_path / ".blob.tmp", tmp_path / ".a.b.c.tmp"]
    for path in (left, *kept):
        path.write_bytes(b"half")
    remove_leftovers(tmp_path)
    assert not left.exists() and all(path.exists() for path in kept)
    assert (tmp_path / "checkpoints" / "epoch.safetensors").read_bytes() == b"whole"


def test_a_device_starts_without_the_unfinished_files_of_the_one_before(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    left = [tmp_path / ".checkpoint-000003.tmp", tmp_path / "bundle" / ".manifest.json.1.1.tmp"]
    for path in left:
        path.write_bytes(b"half")
    StateDir(tmp_path).close()
    assert not any(path.exists() for path in left)
