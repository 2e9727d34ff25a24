"""``gkt status``, ``gkt clients show`` and ``gkt runs`` on a folder and from another machine: the same."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gkt_core.cli import gkt
from gkt_core.errors import GKTError, InputError
from server_app import create_app, open_run
from server_app.heartbeat import ALIVE_NAME, Heartbeat
from server_app.overview.document import overview, witness_of
from server_app.rounds.state import Claimed, Failed, Quarantined, Trained
from server_app.run_folder import SERVER_INFO_NAME, RunContext
from tests.server_app.server_fixtures import OPERATOR_SECRET, closing_runs, operator
from tests.server_app.web.api_fixtures import METRICS
from tests.server_app.web.test_authorisation import Everybody
from tests.server_app.web.test_web_server import serving

pytest_plugins = ["tests.server_app.server_fixtures", "tests.server_app.web.api_fixtures"]


@pytest.fixture
def folder(empty_run: Path, tmp_path: Path) -> Path:
    """The folder of a run, beside which a server seems to be up."""
    shutil.copytree(empty_run, tmp_path / "run")
    info = {"url": "http://127.0.0.1:8080", "pid": os.getpid(), "reserve_bytes": 1}
    (tmp_path / "run" / SERVER_INFO_NAME).write_text(json.dumps(info))
    Heartbeat(tmp_path / "run").waits("waiting for devices")
    return tmp_path / "run"


@pytest.fixture
def run(folder: Path) -> Iterator[RunContext]:
    run = open_run(folder)
    yield run
    run.store.close()


@pytest.fixture
def everybody(run: RunContext) -> Everybody:
    return Everybody(create_app(run, operator_secret=OPERATOR_SECRET), run)


def invoke(*words: object) -> Result:
    with closing_runs():
        done = CliRunner().invoke(gkt, [*map(str, words)])
    if isinstance(done.exception, GKTError):
        raise done.exception
    return done


def one_round(everybody: Everybody) -> None:
    for client_id, bearer in everybody.bearers.items():
        api = everybody.api(bearer)
        api.put_parts(client_id)
        assert api.report(client_id).status_code == 200
    boss = everybody.api(operator())
    boss.run.store.apply(Claimed(1))
    boss.run.store.add_round_metrics(1, METRICS)
    boss.run.store.apply(Trained(1))
    everybody.app.extensions["gkt"].sight.ledger.save()


def test_a_run_at_a_glance(everybody: Everybody, folder: Path) -> None:
    one_round(everybody)
    done = invoke("status", "--data-dir", folder)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].endswith(": collecting, round 2 of 2")
    assert lines[1].startswith("now          round 2 waits for client-")
    assert lines[2].startswith("last round   1: validation accuracy 0.125, ")
    assert lines[3].startswith("time left    about ")
    assert "devices      2 of 2 have joined" in lines
    (mine,) = (line for line in lines if line.startswith("  client-a"))
    assert "training     seen " in mine and "12 samples" in mine and "own accuracy 0.500 in round 1" in mine
    assert any(line.startswith("  client-gone  revoked") for line in lines)
    assert any(line.startswith("trainer      waiting for devices; last sign of life ") for line in lines)
    assert any(line.startswith("disk         ") for line in lines)
    assert lines[-1].startswith("next         nothing to do: round 2 waits for client-")


@pytest.mark.parametrize(
    ("trouble", "code", "words"),
    [
        ("failed", 7, "error        the run has failed: the loss is NaN"),
        ("hangs", 7, "error        the trainer hangs: silent for "),
        ("quarantined", 9, "warning      client-a is quarantined: noise"),
        ("nobody serves", 9, "warning      no server of this run is up"),
        ("full", 8, "error        the disk is full: "),
    ],
)
def test_what_is_wrong_is_said_and_is_the_exit_code(
    everybody: Everybody, folder: Path, trouble: str, code: int, words: str
) -> None:
    store = everybody.run.store
    if trouble == "failed":
        store.apply(Failed("the loss is NaN"))
    elif trouble == "hangs":
        os.utime(folder / ALIVE_NAME, (1, 1))
    elif trouble == "quarantined":
        for client_id, bearer in everybody.bearers.items():
            everybody.api(bearer).put_parts(client_id)
            everybody.api(bearer).report(client_id)
        store.apply(Claimed(1))
        store.apply(Quarantined("client-a", 1, "noise"))
    else:
        info = json.loads((folder / SERVER_INFO_NAME).read_text())
        # No process has such a number, and no disk so much room.
        info |= {"pid": 2**30} if trouble == "nobody serves" else {"reserve_bytes": 10**18}
        (folder / SERVER_INFO_NAME).write_text(json.dumps(info))
    done = invoke("status", "--data-dir", folder)
    assert (done.exit_code, words in done.stdout) == (code, True), done.stdout
    as_json = invoke("status", "--data-dir", folder, "--json")
    assert as_json.exit_code == code
    document = json.loads(as_json.stdout)
    assert words.partition("  ")[0] == document["findings"][0]["severity"]
    assert document["findings"][0]["text"] in document["next_step"]


def test_watching_ends_with_the_run(everybody: Everybody, folder: Path) -> None:
    one_round(everybody)
    everybody.run.store.apply(Failed("the end"))
    plain = invoke("status", "--data-dir", folder, "--watch", "--every", "0.1")
    assert plain.exit_code == 7 and plain.stdout.count("collecting") == 0
    lines = invoke("status", "--data-dir", folder, "--watch", "--json").stdout.splitlines()
    assert [json.loads(line)["phase"] for line in lines] == ["failed"]


def test_nothing_that_a_device_says_moves_a_cursor(everybody: Everybody, folder: Path) -> None:
    for client_id, bearer in everybody.bearers.items():
        everybody.api(bearer).put_parts(client_id)
        everybody.api(bearer).report(client_id)
    everybody.run.store.apply(Claimed(1))
    everybody.run.store.apply(Quarantined("client-a", 1, "\x1b[2J noise"))
    assert "\x1b" not in invoke("status", "--data-dir", folder).stdout
    assert "\x1b" not in invoke("clients", "show", "client-a", "--data-dir", folder).stdout


@pytest.fixture
def remote(everybody: Everybody, folder: Path, tmp_path: Path) -> Iterator[Callable[..., Result]]:
    secret = tmp_path / "secret"
    secret.write_text(OPERATOR_SECRET)
    with serving(everybody.app) as port:
        there = ("--server", f"http://127.0.0.1:{port}", "--operator-secret-file", secret)
        yield lambda *words: invoke(*words, *there)


def test_the_same_from_another_machine(
    everybody: Everybody, folder: Path, remote: Callable[..., Result]
) -> None:
    one_round(everybody)

    def without_times(done: Result) -> dict[str, Any]:
        document = json.loads(done.stdout)
        changing = ("at", "seconds_left", "waits_seconds", "disk", "trainer", "url", "next_step")
        kept = {name: value for name, value in document.items() if name not in changing}
        for device in kept["devices"]:
            device.pop("seen_seconds")
        return kept

    there, here = remote("status", "--json"), invoke("status", "--data-dir", folder, "--json")
    assert without_times(there) == without_times(here)
    shown = [json.loads(command("clients", "show", "client-a", *where, "--json").stdout)
             for command, where in ((remote, ()), (invoke, ("--data-dir", folder)))]  # fmt: skip
    assert {each.pop("seen_seconds") >= 0 for each in shown} == {True}
    assert shown[0] == shown[1] and shown[0]["num_examples"] == 12

    def in_folder(*words: object) -> Result:
        return invoke(*words, "--data-dir", folder)

    for command in (remote, in_folder):
        with pytest.raises(InputError, match="no device 'nobody' in this run, expected one of: client-a"):
            command("clients", "show", "nobody")
        paused = command("runs", "pause", "--reason", "lunch")
        assert "is paused: devices wait" in paused.stdout
        assert everybody.run.store.state().halt_reason == "lunch"
        assert json.loads(command("runs", "resume", "--json").stdout)["halt"] == ""
        with pytest.raises(InputError, match="neither paused nor stopped"):
            command("runs", "resume")
        assert json.loads(command("runs", "stop", "--json").stdout)["halt"] == "stopped"
        command("runs", "resume")
    with pytest.raises(InputError, match="expected a line of 300 characters"):
        remote("runs", "pause", "--reason", "x" * 301)
    assert (
        json.loads(remote("clients", "forget", "client-b", "--yes", "--json").stdout)["state"] == "forgotten"
    )
    assert [row.client_id for row in overview(everybody.run, witness_of(folder)).devices] == [
        "client-a", "client-gone", "client-lost",
    ]  # fmt: skip


def test_time_left_is_as_the_last_rounds_took(everybody: Everybody, folder: Path) -> None:
    before = overview(everybody.run, witness_of(folder))
    assert before.seconds_left == -1
    one_round(everybody)
    (metrics,) = (after := overview(everybody.run, witness_of(folder))).finished_rounds
    assert 0 <= after.seconds_left <= metrics.seconds
