"""A device that is forgotten: nothing of it is left in the folder of the run, and the others go on."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from gkt_core.cli import gkt
from gkt_core.errors import ConfigError, InputError
from server_app import RunContext, create_app, open_run
from server_app.cli import clients as clients_command
from server_app.logs.erasing import note_place
from server_app.logs.setup import LogOptions, logging_to
from server_app.members.inviting import enrolled
from server_app.operating import forget_client
from server_app.overview.seen import Ledger
from server_app.overview.watcher import TOLD_NAME
from server_app.quarantine.watch import _first, _name
from server_app.rounds.machine import rounds_of
from server_app.rounds.state import Claimed, Trained
from server_app.store import RemoteBlobStore, edge_metrics
from tests.server_app.server_fixtures import OPERATOR_SECRET, closing_runs, operator
from tests.server_app.web.api_fixtures import METRICS
from tests.server_app.web.test_authorisation import Everybody

pytest_plugins = ["tests.server_app.server_fixtures", "tests.server_app.web.api_fixtures"]
GONE, STAYS = "client-a", "client-b"
NAME = re.compile(rb"(?<![A-Za-z0-9_-])" + GONE.encode() + rb"(?![A-Za-z0-9_-])")


@pytest.fixture
def everybody(run: RunContext) -> Everybody:
    return Everybody(create_app(run, operator_secret=OPERATOR_SECRET), run)


def trained(everybody: Everybody) -> None:
    """A round of both devices, with all that the trainer leaves of it."""
    run = everybody.run
    for client_id, bearer in everybody.bearers.items():
        api = everybody.api(bearer)
        api.put_parts(client_id)
        assert api.report(client_id).status_code == 200
        for name in (_first("train", client_id), _name("validation", client_id, 1)):
            run.blobs.put(name, b"evidence")
    api.train(1)
    kept = edge_metrics(run.store.reports(1).values())
    run.store.add_round_metrics(1, {**METRICS, **kept, f"part/{GONE}": 1.0, f"part/{STAYS}": 1.0})


def holding(folder: Path) -> dict[str, list[str]]:
    """Files of the folder in whose name or bytes the device stands, and around what."""
    held = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            text = path.read_bytes()
            places = [text[max(0, m.start() - 40) : m.end() + 40].decode(errors="replace")
                      for m in NAME.finditer(text)]  # fmt: skip
            if places or NAME.search(str(path.relative_to(folder)).encode()):
                held[str(path.relative_to(folder))] = places
    return held


def test_nothing_of_it_is_left_anywhere_in_the_folder(everybody: Everybody, tmp_path: Path) -> None:
    run, log = everybody.run, tmp_path / "log" / "gkt.log"
    log.parent.mkdir()
    note_place(run.folder, log)
    with logging_to(LogOptions(log_file=log), logging.ERROR):
        trained(everybody)
        # Of the open round, a shard came already, and a link is for it alone.
        everybody.api(everybody.bearers[GONE]).put_parts(GONE, 2, [("train", 0, 8, 0)])
        run.store.credentials.open_enrolment(60.0, client_id=GONE)
        (run.folder / "trainer.log").write_text(f"round 1: {GONE}: nothing to compare\n")
        sight = everybody.app.extensions["gkt"].sight
        sight.ledger.save()
        (run.folder / TOLD_NAME).write_text(json.dumps({"state": run.store.state().to_dict()}))
    before = holding(run.folder)
    assert {"run.sqlite", "seen.json", "trainer.log", "log/gkt.log"} <= {
        name.replace("-wal", "") for name in before
    }
    assert sum("/rounds/" in name or "soft_labels" in name or "watch" in name for name in before) >= 4
    others = {
        path: path.read_bytes() for path in (run.folder / "blobs").rglob(f"*{STAYS}*") if path.is_file()
    }

    forgotten = forget_client(run, GONE)

    assert holding(run.folder) == {}
    assert forgotten.state == "forgotten" and "its name in" in forgotten.notes[0]
    assert any("took part in round 1: the server's network" in note for note in forgotten.notes)
    assert {path: path.read_bytes() for path in others} == others and others
    # The other device goes on, in the round that waits for it alone now.
    state = run.store.state()
    assert rounds_of(state).task_for(state, STAYS, 1.0).action == "train"
    mine = everybody.api(everybody.bearers[STAYS])
    mine.put_parts(STAYS, 2)
    assert mine.report(STAYS, 2).status_code == 200
    (metrics,) = everybody.api(operator()).status().finished_rounds
    assert metrics.num_examples == 24, "a sum in which it counts"
    # It is let in no more, and is no name that an operator could mean.
    assert everybody.ask("GET", f"{mine.root}/status", f"Bearer {everybody.bearers[GONE]}").status_code == 401
    with pytest.raises(InputError, match="no device 'client-a'"):
        forget_client(run, GONE)


def test_one_that_only_enrolled(run: RunContext) -> None:
    enrolled(run, "client-late")
    forgotten = forget_client(run, "client-late")
    assert forgotten.notes[-1] == "no network was trained on anything of it"
    assert run.store.credentials.devices() == {}


def test_what_is_being_trained_on_is_erased_when_that_is_over(everybody: Everybody) -> None:
    run = everybody.run
    for client_id, bearer in everybody.bearers.items():
        api = everybody.api(bearer)
        api.put_parts(client_id)
        api.report(client_id)
    run.store.apply(Claimed(1))
    boss = everybody.api(operator())
    path = f"{boss.root}/operator/clients/{GONE}/forget"
    refused = boss.http.post(path)
    assert refused.status_code == 422 and "is erased when the round is over" in refused.json()["message"]
    # Its secret has ended at once; what the trainer reads is still there.
    assert everybody.ask("GET", f"{boss.root}/status", f"Bearer {everybody.bearers[GONE]}").status_code == 401
    assert run.store.shards(1, GONE)
    run.store.add_round_metrics(1, METRICS)
    run.store.apply(Trained(1))
    done = boss.http.post(path)
    assert done.status_code == 200 and done.json()["state"] == "forgotten"
    assert holding(run.folder).keys() <= {"run.sqlite-wal"}
    everybody.app.extensions["gkt"].sight.ledger.save()
    assert GONE not in Ledger(run.folder).devices()


def test_blobs_in_a_bucket_and_their_copies(tmp_path: Path) -> None:
    bucket = RemoteBlobStore("memory://forgetting", tmp_path / "copies")
    names = ["rounds/000001/client-a/train-000000-x.safetensors"]
    names += ["soft_labels/000001/client-a.safetensors", "soft_labels/000001/client-a.safetensors.sha256"]
    names += ["watch/first/client-a.safetensors"]
    for name in (*names, "rounds/000001/client-ab/train-000000-x.safetensors", "model/server.safetensors"):
        bucket.put(name, b"x")
    bucket.drop_copy(names[0])
    assert bucket.names_of("client-a") == sorted(names)
    assert RemoteBlobStore("memory://nothing", tmp_path / "empty").names_of("client-a") == []


@pytest.fixture
def whole(empty_run: Path, tmp_path: Path) -> Iterator[Everybody]:
    """A folder that commands can open."""
    shutil.copytree(empty_run, tmp_path / "run")
    run = open_run(tmp_path / "run")
    yield Everybody(create_app(run, operator_secret=OPERATOR_SECRET), run)
    run.store.close()


def invoke(folder: Path, client_id: str, *words: str) -> Any:
    """What the command says, as it says it.

    Raises:
        GKTError: As the command does.
    """
    with closing_runs():
        done = CliRunner().invoke(gkt, ["clients", "forget", client_id, "--data-dir", str(folder), *words])
    if done.exception is not None:
        raise done.exception
    return done


def test_the_command_wants_to_be_sure(whole: Everybody) -> None:
    folder = whole.run.folder
    with pytest.raises(ConfigError, match="nothing was erased: give --yes"):
        invoke(folder, GONE)
    assert whole.run.store.credentials.find(GONE) is not None
    with pytest.raises(InputError, match="no device 'nobody' in this run, expected one of: client-a"):
        invoke(folder, "nobody", "--yes")
    done = json.loads(invoke(folder, GONE, "--yes", "--json").stdout)
    assert (done["client_id"], done["state"]) == (GONE, "forgotten")
    assert whole.run.store.credentials.find(GONE) is None


def test_the_command_waits_for_the_end_of_the_round(
    whole: Everybody, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = whole.run
    for client_id, bearer in whole.bearers.items():
        api = whole.api(bearer)
        api.put_parts(client_id)
        api.report(client_id)
    run.store.apply(Claimed(1))
    run.store.add_round_metrics(1, METRICS)
    paused: list[float] = []

    def pause(seconds: float) -> None:
        paused.append(seconds)
        if len(paused) == 2:
            run.store.apply(Trained(1))

    monkeypatch.setattr(clients_command, "time", SimpleNamespace(sleep=pause))
    done = invoke(run.folder, GONE, "--yes")
    assert len(paused) == 2
    assert done.stderr.count("is erased when the round is over; waiting for that") == 1
    assert f"{GONE} is forgotten" in done.stdout and "took part in round 1" in done.stdout
