"""The status of a run over HTTP, and the run's folder."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gkt_core.bundle.manifest import load_bundle
from gkt_core.errors import ConfigError, InputError
from gkt_core.wire.protocol import (
    RunStatus,
    TrainerProgress,
    to_json,
)
from server_app import create_run, open_run
from server_app.rounds.state import Claimed, Failed, Trained
from tests.server_app.server_fixtures import CLIENTS, run_config
from tests.server_app.web.api_fixtures import (
    JOIN,
    METRICS,
    PARTS,
    REPORT,
    Api,
    soft_label_bytes,
)

# --- status


def test_the_status_of_every_phase(api: Api) -> None:
    def check(
        phase: str, round_num: int, reported: Sequence[str] = (), last: Sequence[int] = ()
    ) -> RunStatus:
        status = api.status()
        assert (status.run_id, status.rounds, status.num_clients) == (api.run.store.run_id, 2, 2)
        assert (status.phase, status.round_num, status.reported) == (phase, round_num, list(reported))
        assert [client.last_reported_round for client in status.clients] == list(last)
        assert status.trainer_idle_seconds >= 0
        return status

    assert check("joining", 0).clients == []
    api.join("client-b")
    check("joining", 0, last=[0])
    api.join("client-a")
    (first, _) = check("collecting", 1, last=[0, 0]).clients
    assert (first.client_id, first.num_examples, first.num_validation_examples) == ("client-a", 12, 5)
    assert first.engine == "ort_training"
    api.put_parts("client-b")
    api.report("client-b")
    check("collecting", 1, ["client-b"], last=[0, 1])
    api.put_parts("client-a")
    api.report("client-a")
    assert check("ready", 1, CLIENTS, last=[1, 1]).finished_rounds == []
    api.run.store.apply(Claimed(1))
    progress = TrainerProgress(1, 1, 1, 20.5, 0.5)
    api.run.store.report_progress(progress)
    assert check("training", 1, CLIENTS, last=[1, 1]).trainer == progress
    api.run.store.add_round_metrics(1, METRICS)
    api.run.store.apply(Trained(1))
    status = check("collecting", 2, last=[1, 1])
    assert status.trainer is None, "progress belongs to the phase in which the server trains"
    assert [metrics.round_num for metrics in status.finished_rounds] == [1]
    api.collect(2)
    api.train(2)
    status = check("finished", 2, CLIENTS, last=[2, 2])
    assert [metrics.round_num for metrics in status.finished_rounds] == [1, 2]


def test_the_status_of_a_failed_run(joined: Api) -> None:
    joined.run.store.apply(Failed("the loss is NaN"))
    assert (joined.status().phase, joined.status().error) == ("failed", "the loss is NaN")
    task = joined.task("client-a")
    assert (task.action, task.reason) == ("stop", "the loss is NaN")


def test_the_numbers_of_a_finished_round(api: Api) -> None:
    api.join("client-a")
    api.join("client-b", dataclasses.replace(JOIN, num_examples=4))
    api.put_parts("client-a")
    api.put_parts("client-b", parts=(("train", 0, 4, 0), PARTS[2]))
    reports = {
        "client-a": REPORT,
        "client-b": dataclasses.replace(
            REPORT, num_train_shards=1, num_examples=4, loss=1.75, accuracy=1.0, images_per_second=2.5
        ),
    }
    for client_id, report in reports.items():
        assert api.report(client_id, report=report).status_code == 200
    api.train()
    for client_id in CLIENTS:
        api.http.get(f"{api.root}/rounds/1/clients/{client_id}/soft-labels")
    (found,) = api.status().finished_rounds
    assert (found.num_examples, found.edge_loss, found.edge_accuracy) == (16, 1.0, 0.625)
    assert (found.edge_images_per_second, found.server_samples_per_second) == (10.5, 64.0)
    assert (found.train_loss, found.train_accuracy) == (0.5, 0.25)
    assert (found.validation_loss, found.validation_accuracy) == (1.5, 0.125)
    assert found.seconds == pytest.approx(found.edge_seconds + found.server_seconds)
    shard_bytes_sent = sum(shard.upload_bytes for shard in api.run.store.shards(1))
    assert found.upload_bytes == shard_bytes_sent + sum(len(to_json(each)) for each in reports.values())
    assert found.download_bytes == 0, "the soft labels of round 1 are traffic of round 2"
    traffic = api.status().traffic
    assert traffic["download/soft_labels"] == sum(len(soft_label_bytes(each, 1)) for each in CLIENTS)
    assert set(traffic) == {"upload/shards", "upload/reports", "download/soft_labels"}


# --- the run's folder


def test_a_new_run_holds_what_it_needs(server_bundle: Path, tmp_path: Path) -> None:
    run = create_run(tmp_path / "run", server_bundle, run_config())
    # No token that all devices would share, and nothing that others may read.
    assert not (tmp_path / "run" / "token").exists()
    assert len((tmp_path / "run" / "operator_secret").read_text().strip()) >= 32
    for path in (tmp_path / "run", *(tmp_path / "run").rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path
    assert load_bundle(tmp_path / "run" / "artifacts").manifest == run.bundle.manifest
    run.store.close()
    again = open_run(tmp_path / "run")
    assert (again.store.run_id, again.config) == (run.store.run_id, run_config())
    again.store.close()
    with pytest.raises(InputError, match="already exists"):
        create_run(tmp_path / "run", server_bundle, run_config())


@pytest.mark.parametrize(
    ("changes", "token", "words"),
    [
        ({"temperature": 2.0}, None, ["temperature 2.0", "exported with 3.0", "--temperature 2.0"]),
        ({}, "short", ["at least 8"]),
        ({}, "with a space", ["without spaces"]),
        ({}, "nicht-ascii-\xfc", ["ASCII"]),
        ({}, "two\nlines-of-token", ["printable"]),
    ],
)
def test_a_run_that_cannot_be_leaves_nothing_behind(
    server_bundle: Path, tmp_path: Path, changes: Any, token: str, words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        create_run(tmp_path / "run", server_bundle, run_config(**changes), token)
    assert all(word in str(caught.value) for word in words)
    assert list(tmp_path.iterdir()) == []
