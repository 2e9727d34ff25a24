"""Processes of a run that are killed at random moments: nothing is lost, nothing is left behind."""

import collections
import itertools
import os
import subprocess
import sys

import pytest

from edge_runtime.state.state_dir import StateDir
from gkt_core.data.private_data import save_private_data
from gkt_core.errors import ConfigError
from gkt_core.files import remove_leftovers, write_atomically
from gkt_core.wire.protocol import TrainerProgress
from profiling.server.chaos.compare import ChaosOptions, compare_runs
from profiling.server.chaos.kills import VICTIMS, draw_kills, share_done
from server_app.rounds.state import Phase, RunState
from tests.server_app.server_fixtures import CLIENTS, private_data, run_config

pytest_plugins = ["tests.server_app.server_fixtures"]


def test_a_killed_run_ends_with_the_bytes_of_an_undisturbed_one(server_bundle, tmp_path):
    """The short version of ``make chaos``."""
    files = [tmp_path / f"{client_id}.npz" for client_id in CLIENTS]
    for number, file in enumerate(files):
        save_private_data(file, private_data(number, num_train=40))
    lines = []
    options = ChaosOptions(
        artifacts=server_bundle,
        data_files=files,
        config=run_config(rounds=2, server_epochs=2, local_epochs=4),
        num_kills=4,
        seed=7,
        limit_seconds=200,
    )
    report = compare_runs(options, tmp_path / "runs", lines.append)
    assert report["equal"], f"{report['differing']} differ\n" + "\n".join(lines)
    assert report["hashes"]["undisturbed"].keys() >= {"server checkpoint", "server model", "client-a model"}
    killed = collections.Counter(kill["victim"] for kill in report["kills"])
    assert killed["server"] >= 1 and killed["trainer"] >= 1 and killed["client-a"] + killed["client-b"] >= 1
    assert report["starts"]["server"] == 1 + killed["server"]
    assert all(report["starts"][client_id] == 1 + killed[client_id] for client_id in CLIENTS)
    # Different rounds and devices do differ: the hashes are of something.
    assert len(set(report["hashes"]["disturbed"].values())) == len(report["hashes"]["disturbed"])
    assert report["leftovers"] == []


def test_kills_are_drawn_from_the_seed_and_hit_every_kind():
    for seed in range(30):
        kills = draw_kills(5, 4, seed)
        assert kills == draw_kills(5, 4, seed)
        assert {kill.victim for kill in kills[:5]} == set(VICTIMS)
        assert [kill.at for kill in kills] == sorted(kill.at for kill in kills)
        assert all(kill.at <= 0.75 for kill in kills[:5]) and all(kill.at >= 0.75 for kill in kills[5:])
    assert draw_kills(5, 4, 0) != draw_kills(5, 4, 1)
    for num_kills, rounds in ((2, 4), (5, 1)):
        with pytest.raises(ConfigError, match="expected at least 3 in at least 2"):
            draw_kills(num_kills, rounds, 0)


def test_the_share_of_a_run_that_is_done_only_grows():
    def at(phase, round_num, reported=(), epoch=0):
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


def test_unfinished_files_of_killed_processes_go_and_those_of_others_stay(tmp_path):
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


def test_a_device_starts_without_the_unfinished_files_of_the_one_before(tmp_path):
    (tmp_path / "bundle").mkdir()
    left = [tmp_path / ".checkpoint-000003.tmp", tmp_path / "bundle" / ".manifest.json.1.1.tmp"]
    for path in left:
        path.write_bytes(b"half")
    StateDir(tmp_path).close()
    assert not any(path.exists() for path in left)
