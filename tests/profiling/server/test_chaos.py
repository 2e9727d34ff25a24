"""A run that is disturbed at random moments: nothing is lost, or it has a name; nothing is left behind."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.state.state_dir import StateDir
from gkt_core.config.run_config import RunConfig
from gkt_core.data.private_data import PrivateData, Samples, save_private_data
from gkt_core.errors import ConfigError
from gkt_core.files import remove_leftovers, write_atomically
from gkt_core.wire.protocol import TrainerProgress
from profiling.server.chaos.clock import MovableClock
from profiling.server.chaos.compare import Runs, measure_chaos
from profiling.server.chaos.files import spoil
from profiling.server.chaos.losses import LEAST_ROUNDS
from profiling.server.chaos.options import ChaosOptions
from profiling.server.chaos.report import Chaos
from profiling.server.chaos.strikes import (
    CHECKPOINT,
    DAMAGE,
    FILL,
    KILL,
    KINDS,
    REMOVE,
    SHARD,
    STOP,
    TRAINER,
    draw_strikes,
    share_done,
)
from server_app.rounds.state import Phase, RunState
from tests.conftest import LONGEST_SECONDS
from tests.server_app.secrets_kept import secrets_of, shown_in
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


CONFIG = RunConfig(
    num_clients=2, rounds=2, server_epochs=2, local_epochs=4, batch_size=4, server_batch_size=8,
    crop_padding=1, codec="uint8", shard_samples=8,
)  # fmt: skip


def _runs(bundle: Path, folder: Path, options: ChaosOptions, lines: list[str]) -> Runs:
    files = [_private_file(folder, client_id, seed) for seed, client_id in enumerate(CLIENTS)]
    config = dataclasses.replace(CONFIG, rounds=options.rounds)
    return Runs(options, config, bundle, files, folder / "runs", lines.append)


@pytest.mark.system
def test_a_disturbed_run_ends_with_the_bytes_of_an_undisturbed_one(
    server_bundle: Path, tmp_path: Path
) -> None:
    """The short version of ``make chaos``."""
    lines: list[str] = []
    options = ChaosOptions(num_strikes=5, seed=32, rounds=2, limit_seconds=LONGEST_SECONDS / 2)
    report = _runs(server_bundle, tmp_path, options, lines).compared()
    assert report["equal"], f"{report['differing']} differ\n" + "\n".join(lines)
    assert Chaos().failures(report) == []
    assert report["hashes"]["undisturbed"].keys() >= {"server checkpoint", "server model", "client-a model"}
    struck = {(strike["kind"], strike["victim"]) for strike in report["strikes"]}
    assert struck >= {(KILL, TRAINER), (DAMAGE, SHARD), (DAMAGE, CHECKPOINT)}
    # Without root there is no disk to fill: a kill came in its place, and the report says so.
    assert (FILL, "disk") in struck or report["not_measured"]
    assert any(kind == STOP and victim in CLIENTS for kind, victim in struck)
    killed = collections.Counter(each["victim"] for each in report["strikes"] if each["kind"] == KILL)
    assert report["starts"]["server"] == 1 + killed["server"]
    # Different rounds and devices do differ: the hashes are of something.
    assert len(set(report["hashes"]["disturbed"].values())) == len(report["hashes"]["disturbed"])
    assert report["leftovers"] == []
    # The disturbed run's folder was on a disk that is gone; the other's is as a person finds it.
    undisturbed = tmp_path / "runs" / "undisturbed"
    states = [undisturbed / "devices" / client_id for client_id in CLIENTS]
    secrets = secrets_of(undisturbed / "server", states)
    (tmp_path / "report.json").write_text(json.dumps(report) + "\n".join(lines))
    logs = [tmp_path / "runs" / f"{name}-logs" for name in ("undisturbed", "disturbed")]
    assert shown_in(secrets, undisturbed, *logs, tmp_path / "report.json") == []


@pytest.mark.slow  # every day test_damaged_files looks at each loss, without the name being waited for
def test_what_is_lost_for_good_has_a_name_and_the_run_goes_on(server_bundle: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    options = ChaosOptions(rounds=LEAST_ROUNDS, limit_seconds=LONGEST_SECONDS / 2)
    losses = _runs(server_bundle, tmp_path, options, lines).losses()
    assert [loss["state"] == "failed" for loss in losses] == [False, False, False, True], losses
    assert all("without them" in loss["named"] for loss in losses[:2])
    assert "going on from what stood before round 2" in losses[2]["named"]
    assert "--resume-failed" in losses[3]["named"]


def test_too_few_rounds_to_lose_it_all() -> None:
    with pytest.raises(ConfigError, match="--rounds is 4, expected at least 5"):
        measure_chaos(ChaosOptions(rounds=LEAST_ROUNDS - 1), lambda line: None)


def test_other_bytes_and_honest_devices_that_are_left_out_are_failures() -> None:
    document = {"differing": ["server model", "client-a model"], "quarantined": ["client-b"]}
    assert Chaos().failures(document) == [
        "the disturbed run left other bytes: server model, client-a model",
        "client-b was quarantined, which is honest",
    ]


def test_strikes_are_drawn_from_the_seed_and_are_of_every_kind() -> None:
    for seed in range(30):
        strikes = draw_strikes(len(KINDS) + 2, 4, seed)
        assert strikes == draw_strikes(len(KINDS) + 2, 4, seed)
        before_last = strikes[: len(KINDS) + 2]
        assert {(strike.kind, strike.victim) for strike in before_last} == set(KINDS)
        assert [strike.at for strike in strikes] == sorted(strike.at for strike in strikes)
        assert all(strike.at <= 0.75 for strike in before_last)
        assert all(strike.at >= 0.75 and strike.kind == KILL for strike in strikes[len(before_last) :])
        without = draw_strikes(len(KINDS), 4, seed, fills=False)
        assert all(strike.kind != FILL for strike in without)
    assert draw_strikes(5, 4, 0) != draw_strikes(5, 4, 1)


def test_a_moved_clock_is_that_of_all_processes_started_with_it(tmp_path: Path) -> None:
    clock = MovableClock(tmp_path)
    ask = [sys.executable, "-c", "import time; print(time.time())"]

    def told() -> float:
        environment = {**os.environ, **clock.environment}
        return float(subprocess.run(ask, env=environment, capture_output=True, check=True).stdout)

    before = time.time()
    assert before <= told() <= time.time()
    clock.move(-86_400.0)
    assert before - 86_400 <= told() <= time.time() - 86_400


@pytest.mark.parametrize("choice", [0.1, 0.5, 0.9])
def test_spoilt_files_are_not_what_they_were(tmp_path: Path, choice: float) -> None:
    path = tmp_path / "file"
    whole = bytes(range(200))
    path.write_bytes(whole)
    spoil(path, DAMAGE, choice)
    left = path.read_bytes()
    assert left != whole and (len(left) == len(whole)) == (choice > 0.3)
    spoil(path, REMOVE, choice)
    assert not path.exists()


@pytest.mark.parametrize("options", [{"num_strikes": 0}, {"rounds": 1}, {"image_size": 9}])
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
