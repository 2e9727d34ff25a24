"""Who asked for what: a line a request, in which no secret, feature or label stands; erased on demand."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from gkt_core.wire.credentials import DEVICE, Bearer, new_secret
from gkt_core.wire.shards import ShardKey
from server_app import create_app
from server_app.logs.erasing import erase_name, log_files, note_place
from server_app.logs.setup import LogOptions, logging_to
from server_app.run_folder import RunContext
from tests.server_app.server_fixtures import OPERATOR_SECRET, operator, shard_bytes
from tests.server_app.web.api_fixtures import Api
from tests.server_app.web.test_authorisation import Everybody

pytest_plugins = ["tests.server_app.server_fixtures", "tests.server_app.web.api_fixtures"]


@pytest.fixture
def everybody(run: RunContext) -> Everybody:
    return Everybody(create_app(run, operator_secret=OPERATOR_SECRET), run)


def requests(caplog: pytest.LogCaptureFixture) -> list[tuple[str, dict[str, Any]]]:
    return [
        (record.levelname, record.fields)  # type: ignore[attr-defined] # as formats.event gives it
        for record in caplog.records
        if record.name == "gkt.requests"
    ]


def test_a_line_says_who_what_how_much_how_long_and_why_not(
    everybody: Everybody, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gkt.requests")
    mine, boss = everybody.api(everybody.bearers["client-a"]), everybody.api(operator())
    key = ShardKey("client-a", 1, "train", 0)
    body = shard_bytes(key, 8)
    caplog.clear()
    assert mine.put_shard(key, body).status_code == 200
    mine.http.get(f"{mine.root}/rounds/1/clients/client-a/soft-labels")
    mine.http.get(f"{mine.root}/clients/client-b/task")
    everybody.api(Bearer(DEVICE, "client-b", new_secret()).text()).http.get(f"{mine.root}/status")
    boss.http.get("/metrics")
    boss.http.get("/nowhere")
    said = requests(caplog)
    levels = [level for level, _ in said]
    assert levels == ["INFO", "INFO", "WARNING", "WARNING", "INFO", "INFO"]
    shard, missing, other, wrong, metrics, nowhere = (fields for _, fields in said)
    assert (shard["who"], shard["client_id"], shard["operation"]) == (
        "device",
        "client-a",
        "uploads.put_shard",
    )
    assert (shard["upload_bytes"], shard["status"]) == (len(body), 200)
    assert 0 < shard["seconds"] < 900 and shard["address"] == "127.0.0.1"
    assert "refused" not in shard
    assert (missing["status"], missing["client_id"]) == (404, "client-a")
    assert (other["who"], other["client_id"]) == ("device", "client-a")
    assert other["refused"].startswith("the secret of client-a speaks for no other device")
    assert (wrong["who"], wrong["claimed"], wrong["status"]) == ("nobody", "client-b", 401)
    assert (metrics["who"], metrics["operation"]) == ("operator", "watching.metrics")
    assert (nowhere["operation"], nowhere["status"]) == ("nothing", 404)
    # What the server remembers of the device.
    seen = everybody.app.extensions["gkt"].sight.ledger.devices()
    assert seen["client-a"].upload_bytes >= len(body) and "speaks for no other" in seen["client-a"].refused


def test_nothing_secret_stands_in_a_log(
    everybody: Everybody, run: RunContext, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A whole round, and everybody who is refused, at the level that says most."""
    path = tmp_path / "log" / "gkt.log"
    path.parent.mkdir()
    with logging_to(LogOptions(log_file=path), logging.DEBUG):
        for client_id, bearer in everybody.bearers.items():
            api = everybody.api(bearer)
            api.put_parts(client_id)
            assert api.report(client_id).status_code == 200
        for authorization, _ in everybody.wrong.values():
            everybody.ask("GET", f"/v1/runs/{run.store.run_id}/status", authorization)
    text = path.read_text() + capsys.readouterr().err
    assert text.count("uploads.put_shard 200") == 2 * 6 and text.count(" 401") >= 10
    given = [*everybody.bearers.values(), everybody.link, everybody.operator]
    given += [each for each, _ in everybody.wrong.values() if each is not None]
    secrets = {each.removeprefix("Bearer ").rpartition("~")[2] for each in given}
    assert len(secrets) > 8 and not [each for each in secrets if each in text]


@pytest.mark.parametrize("log_format", ["plain", "json"])
def test_a_name_and_its_address_are_taken_out_where_they_stand(
    everybody: Everybody, api: Api, tmp_path: Path, log_format: str
) -> None:
    path = tmp_path / "elsewhere" / "gkt.log"
    path.parent.mkdir()
    note_place(api.run.folder, path)
    with logging_to(LogOptions(log_file=path, log_format=log_format), logging.ERROR):
        for bearer in everybody.bearers.values():
            everybody.api(bearer).status()
        logging.getLogger("gkt.run").info("client-a and client-ab, round-client-a.npz")
        (tmp_path / "trainer.log").write_text("round 1: client-a is quarantined\n")
        path.with_name("gkt.log.1").write_text("client-a from 10.0.0.7: older\n")
        before = path.read_bytes()
        assert erase_name(api.run.folder, "client-a") == 4
        # Whoever writes to it goes on where it was.
        logging.getLogger("gkt.run").info("the last line")
    text = path.read_text()
    assert len(path.read_bytes()) > len(before) and text.count("\n") == before.count(b"\n") + 1
    assert "client-a and" not in text and "client-ab" in text and "round-client-a.npz" in text
    mine, other = (line for line in text.splitlines() if "runs.status" in line)
    assert "client-a" not in mine and "127.0.0.1" not in mine and "client-b" in other and "127.0.0.1" in other
    if log_format == "json":
        assert json.loads(mine)["client_id"] == "*" * len("client-a")
    assert path.with_name("gkt.log.1").read_text() == "******** from ********: older\n"
    assert (tmp_path / "trainer.log").read_text() == "round 1: ******** is quarantined\n"
    assert {each.name for each in log_files(api.run.folder)} == {"gkt.log", "gkt.log.1", "trainer.log"}
