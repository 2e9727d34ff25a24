"""A run that all its devices have left waits for nobody: it stops by name, and a pardon takes it up again."""

import pytest

from server_app.rounds.machine import advance, rounds_of
from server_app.rounds.members import nobody_left
from server_app.rounds.state import (
    Claimed,
    DeadlinePassed,
    Deserted,
    Event,
    Failed,
    Joined,
    Pardoned,
    Phase,
    Quarantined,
    Reported,
    Revoked,
    RunState,
)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_run_in_which_nobody_is_left_stops_by_name_and_can_be_taken_up(mode: str) -> None:
    state = RunState(num_clients=2, rounds=3, mode=mode)
    for event in (Joined("a"), Joined("b"), Reported("a", 1), Reported("b", 1), Claimed(1)):
        state = advance(state, event)
    if mode == "async":
        assert set(state.in_step) == {"a", "b"}
    state = advance(state, Quarantined("a", 1, "noise"))
    assert nobody_left(state) == "" and advance(state, Deserted()) == state
    state = advance(state, Quarantined("b", 1, "other labels"))
    assert state.phase is Phase.COLLECTING
    state = advance(state, Deserted())
    assert state.phase is Phase.FAILED
    for words in ("nobody is left", "a is quarantined: noise", "b is quarantined: other labels", "release"):
        assert words in state.error
    task = rounds_of(state).task_for(state, "a", 0.5)
    assert (task.action, task.reason) == ("stop", state.error)
    # A person looks at one of them: the run goes on with it alone, and nothing is lost.
    state = advance(state, Pardoned("b", trusted=True))
    assert (state.phase, state.error) == (Phase.COLLECTING, "")
    task = rounds_of(state).task_for(state, "b", 0.5)
    assert (task.action, task.round_num) == ("train", 1 if mode == "sync" else 2)
    assert rounds_of(state).task_for(state, "a", 0.5).action == "wait"


def test_a_run_that_others_may_join_waits_for_them_until_its_deadline() -> None:
    state = RunState(num_clients=3, rounds=3, min_clients=1, deadline_seconds=60)
    for event in (Joined("a"), DeadlinePassed(0), Reported("a", 1), Claimed(1), Quarantined("a", 1, "noise")):
        state = advance(state, event)
    assert nobody_left(state) == "" and advance(state, Deserted()) == state
    late = advance(advance(state, DeadlinePassed(1)), Deserted())
    assert (late.phase, "a is quarantined: noise" in late.error) == (Phase.FAILED, True)
    joined = advance(state, Joined("b"))
    assert rounds_of(joined).task_for(joined, "b", 0.5).action == "train"


def test_a_run_whose_devices_were_all_revoked_stops_after_its_deadline() -> None:
    state = RunState(num_clients=2, rounds=3, deadline_seconds=60)
    for event in (Joined("a"), Joined("b"), Revoked("a"), Revoked("b"), DeadlinePassed(1), Deserted()):
        state = advance(state, event)
    assert state.phase is Phase.FAILED and "a was revoked; b was revoked" in state.error


def test_what_failed_for_another_reason_is_not_taken_up_by_a_pardon() -> None:
    state = RunState(num_clients=2, rounds=3)
    held: tuple[Event, ...] = (Reported("a", 1), Reported("b", 1), Claimed(1))
    for event in (
        Joined("a"),
        Joined("b"),
        *held,
        Quarantined("a", 1, "noise"),
        Failed("disk full"),
        Pardoned("a"),
    ):
        state = advance(state, event)
    assert (state.phase, state.error) == (Phase.FAILED, "disk full")
