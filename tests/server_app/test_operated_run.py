"""A real run that a person pauses, stops and resumes, with its log: the same bytes in the end."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from server_app.run_folder import SERVER_WEIGHTS_BLOB
from tests.conftest import Gkt
from tests.server_app.served import SMALL, FinishedSmall, SmallFederation, StartServer
from tests.server_app.waiting import until

TWO = ("--clients", "2", "--rounds", "2", "--poll-seconds", "0.1", *SMALL)


def events(path: Path) -> list[dict[str, Any]]:
    """Every line of a log, all of which are JSON."""
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.system
def test_paused_killed_and_resumed_it_ends_with_the_same_bytes(
    serve: StartServer, small: SmallFederation, finished_small: FinishedSmall, tmp_path: Path, gkt: Gkt
) -> None:
    log = tmp_path / "gkt.log"
    logged = ("--log-file", log, "--log-format", "json")
    first = serve("--artifacts", small.bundle, *TWO, *logged)
    one = first.device(small.data(0), tmp_path / "a")
    until(lambda: first.status().clients, "the first device joins")
    paused = gkt("runs", "pause", "--data-dir", first.data_dir, "--reason", "the office moves")
    assert paused.returncode == 0, paused.stderr
    two = first.device(small.data(1), tmp_path / "b")
    waits = "whoever runs it has paused the run: the office moves"
    first.wait_for(two.log, waits)
    assert first.end(signal.SIGKILL) == -signal.SIGKILL

    second = serve(*logged)
    shown = gkt("status", "--data-dir", second.data_dir, "--json")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    document = json.loads(shown.stdout)
    assert (document["halt"], document["phase"], document["finished_rounds"]) == ("paused", "collecting", [])
    assert "gkt runs resume" in document["next_step"]
    # Devices find another port with the link of the new server.
    for device in (one, two):
        device.process.kill()
        device.process.wait()
    one, two = (second.device(small.data(number), tmp_path / name) for number, name in ((0, "a"), (1, "b")))
    second.wait_for(one.log, waits)
    resumed = gkt("runs", "resume", "--data-dir", second.data_dir)
    assert resumed.returncode == 0, resumed.stderr
    for device in (one, two):
        assert device.ended() == 0, device.log.read_text()
    finished = gkt("status", "--data-dir", second.data_dir, "--watch")
    assert finished.returncode == 0 and "gkt deploy" in finished.stdout
    assert second.end() == 130

    weights = Path("blobs") / SERVER_WEIGHTS_BLOB
    assert (second.data_dir / weights).read_bytes() == (finished_small.run / weights).read_bytes()
    lines = events(log)
    joined = [line["client_id"] for line in lines if line["event"] == "join"]
    assert joined == ["client-000", "client-001"]
    rounds = [line for line in lines if line["event"] == "round"]
    assert [line["round_num"] for line in rounds] == [1, 2]
    assert all(line["devices"] == joined and line["late"] == [] for line in rounds)
    assert all(line["upload_bytes"] > 0 and line["server_samples_per_second"] > 0 for line in rounds)
    # From three processes, in one file and one format.
    assert [line["logger"] for line in lines if line["message"].startswith("round 1: 32 samples")] == [
        "gkt.trainer"
    ]
    requests = [line for line in lines if line["event"] == "request"]
    assert sum(line["operation"] == "uploads.put_report" for line in requests) == 4
    assert {line["client_id"] for line in requests if line["operation"] == "uploads.put_shard"} == {*joined}
    # What a person sees beside it has no request in it.
    said = [json.loads(line)["event"] for line in second.err.read_text().splitlines() if line[:1] == "{"]
    assert {"history", "round", "finished"} <= set(said) and "request" not in said


@pytest.mark.system
def test_stopped_devices_end_with_the_reason_and_go_on_later(
    serve: StartServer, small: SmallFederation, tmp_path: Path, gkt: Gkt
) -> None:
    server = serve("--artifacts", small.bundle, *TWO)
    alone = server.device(small.data(0), tmp_path / "a")
    until(lambda: server.status().clients, "the device joins")
    stopped = gkt("runs", "stop", "--data-dir", server.data_dir, "--reason", "the study ended")
    assert stopped.returncode == 0, stopped.stderr
    assert alone.ended() == 7
    assert "whoever runs it has stopped the run: the study ended" in alone.log.read_text()
    late = server.device(small.data(1), tmp_path / "b")
    assert late.ended() == 3 and "cannot join: whoever runs it has stopped" in late.log.read_text()
    assert gkt("runs", "resume", "--data-dir", server.data_dir).returncode == 0
    both = [server.device(small.data(number), tmp_path / name) for number, name in ((0, "a"), (1, "b"))]
    for device in both:
        assert device.ended() == 0, device.log.read_text()
    server.wait_for(server.err, "the run is finished")
    said = server.err.read_text()
    assert "the run is stopped: the study ended" in said and "round 2/2: validation accuracy" in said
