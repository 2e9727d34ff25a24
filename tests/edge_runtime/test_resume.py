"""A device that is killed in the middle of a round ends with the very bytes of one that was not."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime import DeviceEngine, open_engine
from gkt_core.bundle.manifest import ENGINE_FILES, Bundle
from gkt_core.config.run_config import RunConfig
from gkt_core.data.private_data import load_private_data, save_private_data
from gkt_core.rounds.client_part import ClientPart
from gkt_core.rounds.client_round import LocalProgress, client_update
from gkt_core.wire.shards import SoftLabels
from tests.edge_runtime.device_fixtures import GKT, Served, command, process, take_part, wait_until
from tests.killing import run_killed
from tests.server_app.server_fixtures import private_data

pytest_plugins = ["tests.server_app.server_fixtures"]


@pytest.mark.system
@pytest.mark.parametrize("engine", ENGINE_FILES)
def test_killed_at_any_moment(server_bundle: Path, tmp_path: Path, engine: str) -> None:
    """Two kills in the middle of the round, then one while it starts, writes, trains or uploads."""
    kill_at_random(server_bundle, tmp_path, engine, kills=1, seed=int.from_bytes(os.urandom(4)))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINE_FILES)
def test_killed_thirty_times(server_bundle: Path, tmp_path: Path, engine: str) -> None:
    kill_at_random(server_bundle, tmp_path, engine, kills=30, seed=1)


def saved_steps(state_dir: Path) -> int:
    return max(
        (int(path.name.rsplit("-", 1)[1]) for path in state_dir.glob("checkpoint-000001-*")), default=0
    )


def state_of(state_dir: Path) -> dict[str, Any]:
    return dict(json.loads((state_dir / "state.json").read_text()))


def kill_at_random(bundle: Path, folder: Path, engine: str, *, kills: int, seed: int) -> None:
    data, state_dir = folder / "client-a.npz", folder / "state"
    save_private_data(data, private_data(1, num_train=40))
    settings = {"local_epochs": 40}
    take_part(Served(bundle, folder / "r0", **settings), data, folder / "undisturbed", engine=engine)
    rng = np.random.default_rng(seed)
    moments = []
    with Served(bundle, folder / "r1", **settings).listening() as served:
        arguments = command(served, data, state_dir, "--engine", engine.replace("_", "-"))
        for _ in range(2):
            # At whatever moment after five more steps: between two writes or within one.
            run_killed(
                *arguments[len(GKT) :],
                after="edge_runtime.state.state_dir:StateDir.save",
                calls=5,
                delay_seconds=rng.uniform(0, 0.01),
            )
            moments.append(state_of(state_dir)["partial"]["num_steps"])
        assert 0 < moments[0] < moments[1] and state_of(state_dir)["trained_round"] == 0
        for _ in range(kills):
            steps = saved_steps(state_dir)
            with process(arguments) as killed:
                # Of all kills some come before the first step, the others between two or within a write.
                if rng.random() < 0.75:
                    wait_until(lambda: saved_steps(state_dir) > steps or served.has_report, killed)  # noqa: B023
                time.sleep(rng.uniform(0, 0.15))
                killed.send_signal(signal.SIGKILL)
            moments.append(saved_steps(state_dir))
        begun = state_of(state_dir)["partial"] is not None
        with process(arguments) as last:
            assert last.stderr is not None
            told = next(line for line in last.stderr if f"on {engine}" in line)
            wait_until(lambda: served.has_report, last)
    message = f"seed {seed}, steps saved at the kills: {moments}"
    assert ("steps of the next" in told) is begun, message
    ours, theirs = (path / "checkpoint-000001" for path in (state_dir, folder / "undisturbed"))
    assert list(state_dir.glob("checkpoint-*")) == [ours]
    assert ours.read_bytes() == theirs.read_bytes(), message
    states = [state_of(path.parent) for path in (ours, theirs)]
    assert all(states[0][name] == states[1][name] for name in ("loss", "accuracy", "trained_round")), message


@pytest.mark.parametrize("engine", ENGINE_FILES)
@pytest.mark.parametrize("stop_after", [1, 11, 15])
def test_any_step_is_a_place_to_go_on_from(
    digits_bundle: Bundle, digits_split: Path, tmp_path: Path, engine: str, stop_after: int
) -> None:
    """Within an epoch, at its end, in the next; with soft labels; on both engines."""
    data = load_private_data(digits_split / "clients" / "client-000.npz")
    part = ClientPart("client-000", data, RunConfig(local_epochs=2, batch_size=32), num_classes=10)
    samples = data.train
    rng = np.random.default_rng(0)
    teacher = SoftLabels(samples.sample_ids, rng.standard_normal((len(samples), 10)).astype(np.float32))

    def opened(checkpoint: Path | None) -> DeviceEngine:
        return open_engine(
            digits_bundle, checkpoint=checkpoint, num_threads=1, learning_rate=1e-3, engine=engine
        )

    whole = opened(None)
    saved: list[LocalProgress] = []

    def save(progress: LocalProgress) -> None:
        if progress.num_steps == stop_after:
            whole.save(tmp_path / "state")
            saved.append(progress)

    expected = client_update(whole, part, teacher, 2, on_progress=save)
    resumed = opened(tmp_path / "state")
    found = client_update(resumed, part, teacher, 2, done=saved[0])
    assert found == expected
    ours, theirs = resumed.parameters(), whole.parameters()
    assert all(ours[name].tobytes() == theirs[name].tobytes() for name in theirs)
