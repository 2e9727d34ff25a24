"""What a person does to a run that goes on, as pure functions of its state, and deadlines meanwhile."""

from __future__ import annotations

import dataclasses
import json
import time

import pytest

from gkt_core.errors import RoundClosedError, RoundError
from server_app.rounds.deadline import Deadline
from server_app.rounds.machine import advance, part_is_closed, rounds_of
from server_app.rounds.members import nobody_left
from server_app.rounds.state import (
    PAUSED,
    STOPPED,
    Claimed,
    Continued,
    DeadlinePassed,
    Event,
    Failed,
    Forgotten,
    Halted,
    Joined,
    Noted,
    Phase,
    Quarantined,
    Reported,
    Revoked,
    RulesChanged,
    RunState,
    Trained,
)

MODES = ("sync", "async")


def after(state: RunState, *events: Event) -> RunState:
    for event in events:
        state = advance(state, event)
    return state


def begun(mode: str = "sync", rounds: int = 2) -> RunState:
    return after(RunState(2, rounds, mode=mode), Joined("a"), Joined("b"))


def task(state: RunState, client_id: str = "a") -> tuple[str, str, float]:
    told = rounds_of(state).task_for(state, client_id, 2.0)
    return told.action, told.reason, told.retry_after_seconds


@pytest.mark.parametrize("mode", MODES)
def test_a_paused_run_takes_what_comes_and_goes_on_where_it_was(mode: str) -> None:
    undisturbed = after(begun(mode), Reported("a", 1), Reported("b", 1))
    paused = after(begun(mode), Halted(PAUSED, "lunch"))
    assert task(paused) == ("wait", "whoever runs it has paused the run: lunch", 2.0)
    # What a device has begun to send is taken; nothing else changes.
    paused = after(paused, Reported("a", 1), Reported("b", 1))
    assert paused.phase is undisturbed.phase
    assert RunState.from_dict(json.loads(json.dumps(paused.to_dict()))) == paused
    resumed = after(paused, Continued())
    assert dataclasses.replace(resumed, history=()) == undisturbed
    assert [entry.text for entry in resumed.history] == ["paused: lunch", "resumed, after it was paused"]
    assert {entry.kind for entry in resumed.history} == {"operator"}


@pytest.mark.parametrize("mode", MODES)
def test_a_stopped_run_ends_its_devices_and_takes_nobody(mode: str) -> None:
    stopped = after(begun(mode), Halted(STOPPED, "enough"))
    assert task(stopped) == ("stop", "whoever runs it has stopped the run: enough", 0.0)
    with pytest.raises(RoundClosedError, match="stopped the run: enough"):
        rounds_of(stopped).check_upload(stopped, "a", 1)
    assert part_is_closed(stopped, "a", 1), "a report that comes now changes nothing, and is no error"
    with pytest.raises(RoundError, match="cannot join: whoever runs it has stopped"):
        advance(after(RunState(2, 2, mode=mode), Joined("a"), Halted(STOPPED)), Joined("b"))
    assert task(after(stopped, Continued()))[0] == "train"
    with pytest.raises(RoundError, match="gkt runs resume"):
        advance(stopped, Halted(PAUSED))


def test_the_trainer_ends_its_round_and_a_last_one_ends_the_run() -> None:
    training = after(begun(rounds=2), Reported("a", 1), Reported("b", 1), Claimed(1), Halted(PAUSED, "x"))
    between = after(training, Trained(1))
    assert (between.phase, between.round_num, between.halt) == (Phase.COLLECTING, 2, PAUSED)
    last = after(between, Continued(), Reported("a", 2), Reported("b", 2), Claimed(2), Halted(STOPPED, "y"))
    finished = after(last, Trained(2))
    assert (finished.phase, finished.halt, finished.halt_reason) == (Phase.FINISHED, "", "")
    assert task(finished)[0] == "finish"


def test_what_cannot_be_done_changes_nothing_and_says_why() -> None:
    finished = after(begun(rounds=1), Reported("a", 1), Reported("b", 1), Claimed(1), Trained(1))
    failed = after(begun(), Failed("why"))
    for state, event, words in (
        (finished, Halted(PAUSED), "is finished: there is nothing to pause"),
        (failed, Halted(STOPPED), "has failed: there is nothing to stop"),
        (begun(), Continued(), "neither paused nor stopped"),
        (failed, Continued(), "--resume-failed"),
    ):
        with pytest.raises(RoundError, match=words):
            advance(state, event)
    paused = after(begun(), Halted(PAUSED, "x"))
    assert advance(paused, Halted(PAUSED, "x")) == paused
    assert len(after(paused, Halted(PAUSED, "y")).history) == 2
    # Devices of a run that has failed are told of that.
    assert task(after(paused, Failed("why")))[:2] == ("stop", "why")


def test_no_deadline_runs_while_a_run_is_paused(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    state = after(begun(), RulesChanged(1, 10.0))
    deadline = Deadline()
    assert not deadline.has_passed(state)
    now += 6
    assert not deadline.has_passed(state)
    paused = after(state, Halted(PAUSED))
    for _ in range(5):
        assert not deadline.has_passed(paused)
        now += 100
    assert not deadline.has_passed(paused)
    now += 3.5
    assert not deadline.has_passed(state)
    now += 1
    assert deadline.has_passed(state)
    assert advance(paused, DeadlinePassed(1)) == paused


def test_a_paused_run_that_nobody_is_left_of_does_not_fail() -> None:
    held = after(begun(), Reported("a", 1), Reported("b", 1), Claimed(1), Quarantined("a", 1, "noise"))
    held = after(held, Revoked("b"))
    gone = dataclasses.replace(held, phase=Phase.COLLECTING, num_clients=1)
    assert nobody_left(gone)
    assert not nobody_left(after(gone, Halted(PAUSED)))


@pytest.mark.parametrize("mode", MODES)
def test_a_forgotten_device_is_nowhere_in_the_state(mode: str) -> None:
    state = after(begun(mode), Noted("damaged", "asked for again: shard 3 of a, and not of ab or a-b"))
    state = after(state, Reported("a", 1), Reported("b", 1), Claimed(1), Trained(1), Revoked("a"))
    assert '"a"' in json.dumps(state.to_dict())
    forgotten = after(state, Forgotten("a"))
    assert '"a"' not in json.dumps(forgotten.to_dict())
    assert forgotten.history[0].text == "asked for again: shard 3 of a forgotten device, and not of ab or a-b"
    assert forgotten.clients == ("b",) and task(forgotten, "b")[0] == "train"


@pytest.mark.parametrize("mode", MODES)
def test_nobody_is_forgotten_who_takes_part_or_is_being_trained_on(mode: str) -> None:
    with pytest.raises(RoundError, match="is revoked before it is forgotten"):
        advance(begun(mode), Forgotten("a"))
    training = after(begun(mode), Reported("a", 1), Reported("b", 1), Claimed(1), Revoked("a"))
    with pytest.raises(RoundError, match="is erased when the round is over"):
        advance(training, Forgotten("a"))
    assert "a" not in after(training, Trained(1), Forgotten("a")).revoked
