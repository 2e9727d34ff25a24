"""What the log says of a run while it goes on, and when nothing does."""

from __future__ import annotations

import logging

import pytest

from server_app.members.membership import change_client
from server_app.operating import change_run, forget_client
from server_app.overview.document import Witness, overview
from server_app.overview.seen import SEEN_NAME, Ledger, read_seen
from server_app.overview.watcher import TOLD_NAME, RunWatcher, Silence, tells_changes
from server_app.rounds.state import (
    AnswerLost,
    Claimed,
    DeadlinePassed,
    Failed,
    Phase,
    Quarantined,
    Resumed,
    RulesChanged,
    RunState,
)
from server_app.run_folder import RunContext
from tests.server_app.server_fixtures import CLIENTS
from tests.server_app.web.api_fixtures import Api

pytest_plugins = ["tests.server_app.server_fixtures", "tests.server_app.web.api_fixtures"]


class Lines:
    """A watcher whose looks a test decides on, and what the log says."""

    def __init__(self, run: RunContext, caplog: pytest.LogCaptureFixture, first_wait: float = 1e9) -> None:
        caplog.set_level(logging.INFO, "gkt.run")
        self.caplog, self.ledger = caplog, Ledger(run.folder)
        caplog.clear()
        self.watcher = RunWatcher(
            run,
            self.ledger,
            lambda: overview(run, Witness(url="http://here", started_at=1.0)),
            first_wait_seconds=first_wait,
        )
        self.watcher.look()

    def look(self) -> list[str]:
        """What is said of what happened since the last look."""
        self.caplog.clear()
        self.watcher.look()
        return [each.getMessage() for each in self.caplog.records if each.name == "gkt.run"]

    def events(self) -> list[tuple[str, str]]:
        return [
            (each.levelname, getattr(each, "event", ""))
            for each in self.caplog.records
            if each.name == "gkt.run"
        ]


@pytest.fixture
def lines(run: RunContext, caplog: pytest.LogCaptureFixture) -> Lines:
    return Lines(run, caplog)


def test_a_run_from_joining_to_its_end(api: Api, lines: Lines) -> None:
    assert lines.look() == []
    api.join("client-a")
    assert lines.look() == ["client-a has joined with 12 samples and ort_training: 1 of 2 devices"]
    api.join("client-b")
    said = lines.look()
    assert said[0].startswith("client-b has joined") and said[1:] == ["the run begins: 2 devices, 2 rounds"]
    api.collect()
    assert lines.look() == []
    api.train()
    (said_of_round,) = lines.look()
    (metrics,) = api.status().finished_rounds
    assert said_of_round.startswith("round 1/2: validation accuracy 0.125, 2 devices, ")
    assert said_of_round.endswith("64 samples/s)") and "late" not in said_of_round
    record = next(each for each in lines.caplog.records if each.name == "gkt.run")
    fields = record.fields  # type: ignore[attr-defined] # as server_app.logs.formats.event gives it
    assert (fields["upload_bytes"], fields["devices"]) == (metrics.upload_bytes, list(CLIENTS))
    # Both rounds of which nobody saw anything in between.
    api.collect(2)
    api.train(2)
    said = lines.look()
    assert said[0].startswith("round 2/2: ")
    assert said[1:] == ["the run is finished: devices take the model, and the server may be stopped then"]
    assert lines.look() == []


def test_late_and_quarantined_devices_and_what_people_do(joined: Api, lines: Lines) -> None:
    store = joined.run.store
    store.apply(RulesChanged(1, 60.0))
    joined.put_parts("client-a")
    joined.report("client-a")
    store.apply(DeadlinePassed(1))
    assert lines.look() == ["round 1: the deadline has passed, 1 device is late: client-b"]
    store.apply(Claimed(1))
    store.apply(Quarantined("client-a", 1, "far outside"))
    assert lines.look() == ["client-a is quarantined: far outside"]
    assert lines.events() == [("WARNING", "quarantine")]
    change_client(joined.run, "client-a", "trust")
    assert lines.look() == ["client-a is released from quarantine"]
    change_run(joined.run, "pause", "lunch")
    assert lines.look() == ["the run is paused: lunch"]
    change_run(joined.run, "resume")
    assert lines.look() == ["the run is resumed, after it was paused"]
    store.apply(AnswerLost("client-b"))
    assert lines.look() == ["damaged: soft labels of client-b: it trains a round without them"]
    store.apply(Failed("the disk broke"))
    assert lines.look() == ["the run failed: the disk broke"]
    assert lines.events() == [("ERROR", "failed")]
    store.apply(Resumed())
    assert lines.look()[0] == "the run goes on, after: the disk broke"
    change_client(joined.run, "client-b", "revoke")
    assert lines.look() == ["client-b is revoked"]
    forget_client(joined.run, "client-b")
    assert lines.look() == ["a device is forgotten, and what it sent is erased"]


def test_a_round_names_who_was_late(joined: Api, lines: Lines) -> None:
    lines.look()
    joined.run.store.apply(RulesChanged(1, 60.0))
    joined.put_parts("client-a")
    joined.report("client-a")
    joined.run.store.apply(DeadlinePassed(1))
    assert lines.look() == ["round 1: the deadline has passed, 1 device is late: client-b"]
    joined.train()
    (said,) = lines.look()
    assert "1 device, late: client-b, " in said


def test_a_server_that_was_killed_or_down_tells_the_rest_later(
    api: Api, run: RunContext, caplog: pytest.LogCaptureFixture
) -> None:
    first = Lines(run, caplog)
    api.join("client-a")
    first.look()
    # Nobody looks meanwhile.
    api.join("client-b")
    api.collect()
    api.train()
    change_run(run, "pause", "lunch")
    second = Lines(run, caplog)
    said = [each.getMessage() for each in caplog.records if each.name == "gkt.run"]
    assert [line.partition(" ")[0] for line in said] == ["round", "client-b", "the", "the"], said
    assert said[-1] == "the run is paused: lunch" and second.look() == []
    assert tells_changes(run.folder)
    (run.folder / TOLD_NAME).write_text("{damaged")
    assert not tells_changes(run.folder)
    assert Lines(run, caplog).look() == [], "it begins with what is now"


def test_silence_is_broken_by_what_is_waited_for(
    api: Api, run: RunContext, caplog: pytest.LogCaptureFixture
) -> None:
    lines = Lines(run, caplog, first_wait=0.0)
    (waits, finding) = lines.look()
    assert waits.startswith("it waits for 2 of 2 devices to join, for ")
    assert finding.startswith("2 of 2 devices have never joined, and none came for ")
    for client_id in CLIENTS:
        api.join(client_id)
    assert any("round 1 waits for client-a" in line for line in lines.look())


def test_how_long_nobody_came_does_not_begin_anew_with_each_question(
    api: Api, run: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1e9]
    monkeypatch.setattr("server_app.overview.seen.time.time", lambda: now[0])
    monkeypatch.setattr("server_app.overview.document.time.time", lambda: now[0])
    api.join("client-a")
    ledger = Ledger(run.folder)
    for _ in range(4):
        # A device that has joined asks again and again whether the run begins.
        ledger.note("client-a")
        now[0] += 20

    def waits_seconds() -> float:
        return overview(run, Witness(ledger.devices(), "http://here", 1e9 - 50)).waits_seconds

    assert waits_seconds() == 80
    ledger.note("client-b")
    assert waits_seconds() == 0, "another one came"
    ledger.save()
    assert Ledger(run.folder).devices() == ledger.devices()


def test_pauses_grow_until_something_happens() -> None:
    now = [0.0]
    silence = Silence(60.0, 200.0, clock=lambda: now[0])
    waiting = RunState(2, 2, phase=Phase.COLLECTING)
    said = []
    while now[0] < 1000:
        now[0] += 10
        if silence.is_over(waiting):
            said.append(now[0])
    assert said == [60, 180, 380, 580, 780, 980]
    silence.is_broken()
    now[0] += 59
    assert not silence.is_over(waiting)
    now[0] += 1
    assert silence.is_over(waiting)
    now[0] += 1e6
    assert not silence.is_over(RunState(2, 2, phase=Phase.FINISHED)), "nothing is waited for any more"


def test_who_was_seen_is_kept_and_a_forgotten_device_is_not(joined: Api, lines: Lines) -> None:
    lines.ledger.note("client-a", upload_bytes=5)
    lines.ledger.note("client-a", upload_bytes=7, refused="why")
    lines.ledger.note("mallory")
    lines.watcher.stop()
    lines.watcher.look()
    kept = read_seen(joined.run.folder)
    assert set(kept) == {"client-a"}
    assert (kept["client-a"].upload_bytes, kept["client-a"].refused) == (12, "why")
    assert Ledger(joined.run.folder).devices() == kept
    (joined.run.folder / SEEN_NAME).write_text("[damaged")
    assert read_seen(joined.run.folder) == {}
