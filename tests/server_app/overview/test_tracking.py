"""A served run in TensorBoard: each finished round once, over two servers, and none of a device's names."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest

from gkt_core.tracking.about import About
from gkt_core.tracking.options import TrackOptions
from gkt_core.tracking.trackers import Trackers
from server_app import create_app, open_run
from server_app.overview.watcher import RunWatcher
from server_app.rounds.state import Claimed, Trained
from server_app.run_folder import RunContext
from tests.conftest import LONGEST_SECONDS
from tests.gkt_core.tracking.test_tracking import scalars_of
from tests.server_app.web.api_fixtures import METRICS
from tests.server_app.web.test_authorisation import Everybody

pytest_plugins = ["tests.server_app.server_fixtures", "tests.server_app.web.api_fixtures"]


def train_round(everybody: Everybody, round_num: int) -> None:
    for client_id, bearer in everybody.bearers.items():
        api = everybody.api(bearer)
        api.put_parts(client_id, round_num)
        assert api.report(client_id, round_num).status_code == 200
    everybody.run.store.apply(Claimed(round_num))
    everybody.run.store.add_round_metrics(round_num, METRICS)
    everybody.run.store.apply(Trained(round_num))


def serve_once(run: RunContext, target: str) -> None:
    """What a server does of it, from its start to its end."""
    sight = create_app(run, operator_secret="x" * 43).extensions["gkt"].sight
    targets = TrackOptions(track=(target,)).targets
    trackers = Trackers(targets, run.folder, About(run.store.run_id, run.config.to_dict()))
    watcher = RunWatcher(run, sight.ledger, sight.look, trackers=trackers)
    watcher.look()
    watcher.look()
    trackers.close(seconds=LONGEST_SECONDS)


@pytest.fixture
def run(empty_run: Path, tmp_path: Path) -> RunContext:
    return open_run(Path(shutil.copytree(empty_run, tmp_path / "run")))


def test_each_round_is_tracked_once(run: RunContext, tmp_path: Path) -> None:
    with contextlib.closing(run.store):
        everybody = Everybody(create_app(run, operator_secret="x" * 43), run)
        train_round(everybody, 1)
        # Its server tracked nothing: a later one catches up.
        serve_once(run, f"tensorboard:{tmp_path / 'logs'}")
        serve_once(run, f"tensorboard:{tmp_path / 'logs'}")
        folder = tmp_path / "logs" / run.store.run_id
        scalars = scalars_of(folder)
        assert [step for step, _ in scalars["validation/accuracy"]] == [1]
        assert scalars["validation/accuracy"][0][1] == METRICS["validation_accuracy"]
        assert scalars["bytes/upload"][0][1] > 0
        written = b"".join(path.read_bytes() for path in folder.iterdir())
        assert b"client-" not in written and b"server_epochs" in written
