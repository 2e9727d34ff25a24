"""Runs that grow and that go on after a failure, as pure functions of their state."""

from __future__ import annotations

import dataclasses

import pytest

from gkt_core.errors import RoundError
from server_app.rounds.history import HistoryEntry, first_value, stamped, with_entry
from server_app.rounds.machine import advance, rounds_of
from server_app.rounds.state import (
    Claimed,
    Event,
    Failed,
    Grown,
    Joined,
    Noted,
    PartsLost,
    Phase,
    Reported,
    Resumed,
    Revoked,
    RunState,
    Trained,
)

MODES = ("sync", "async")


def after(state: RunState, *events: Event) -> RunState:
    for event in events:
        state = advance(state, event)
    return state


def round_of_two(round_num: int) -> tuple[Event, ...]:
    return Reported("a", round_num), Reported("b", round_num), Claimed(round_num), Trained(round_num)


def finished(mode: str) -> RunState:
    state = after(RunState(2, 1, mode=mode), Joined("a"), Joined("b"), *round_of_two(1))
    assert state.phase is Phase.FINISHED
    return state


@pytest.mark.parametrize("mode", MODES)
def test_a_finished_run_goes_on_with_more_rounds(mode: str) -> None:
    rounds = 2 if mode == "async" else 3
    state = after(finished(mode), Grown(rounds, 3, (("rounds", 1, rounds), ("num_clients", 2, 3))))
    assert (state.phase, state.round_num, state.selected) == (Phase.COLLECTING, 2, ("a", "b"))
    task = rounds_of(state).task_for(state, "a", 1.0)
    assert (task.action, task.round_num, task.soft_labels_round) == ("train", 2, 1)
    # One more may join, and no further.
    state = after(state, Joined("c"))
    with pytest.raises(RoundError, match="all 3 devices"):
        advance(state, Joined("d"))
    state = after(state, *round_of_two(2))
    if mode == "async":
        # Without rounds the new device does the ones that are left of its own.
        assert state.phase is not Phase.FINISHED
        state = after(state, Reported("c", 2), Claimed(3), Trained(3))
    else:
        assert (state.round_num, state.selected) == (3, ("a", "b", "c"))
        state = after(state, *(Reported(each, 3) for each in "abc"), Claimed(3), Trained(3))
    assert state.phase is Phase.FINISHED


@pytest.mark.parametrize("mode", MODES)
def test_a_run_that_goes_on_may_grow_at_any_time(mode: str) -> None:
    state = RunState(2, 1, mode=mode)
    for event in (Joined("a"), Joined("b"), *round_of_two(1)[:3]):
        state = after(state, event)
        phase = state.phase
        state = after(state, Grown(state.rounds + 1, state.num_clients, ()))
        assert state.phase is phase, event
    assert state.rounds == 6 and len(state.history) == 5


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (Grown(0, 2), "has 1 rounds, and cannot have 0"),
        (Grown(1, 1), "has 2 devices, and cannot have 1"),
        (Grown(1, 3), "takes part from round 3 on, and the run has 1"),
        (Grown(2, 3), "takes part from round 3 on, and the run has 2"),
    ],
)
def test_a_run_cannot_shrink(event: Grown, words: str) -> None:
    with pytest.raises(RoundError, match=words):
        advance(finished("sync"), event)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("done", range(6))
def test_a_failed_run_goes_on_where_it_failed(mode: str, done: int) -> None:
    """It ends as one that never failed, wherever that was; what was being trained is claimed again."""
    events = (Joined("a"), Joined("b"), *round_of_two(1), *round_of_two(2))
    before = after(RunState(2, 2, mode=mode), *events[:done])
    failed = after(before, Failed("no disk"))
    assert rounds_of(failed).task_for(failed, "a", 1.0).action == "stop" if done > 1 else failed.error
    state = after(failed, Resumed())
    assert (state.error, [each.kind for each in state.history]) == ("", ["failed", "resumed"])
    assert all("no disk" in each.text for each in state.history)
    expected = (
        before if before.phase is not Phase.TRAINING else dataclasses.replace(before, phase=Phase.READY)
    )
    assert dataclasses.replace(state, history=()) == expected
    again = [Claimed(1)] if before.phase is Phase.TRAINING else []
    assert after(state, *again, *events[done:]).phase is Phase.FINISHED
    with pytest.raises(RoundError, match="has not failed"):
        advance(state, Resumed())


@pytest.mark.parametrize("mode", MODES)
def test_a_device_that_is_revoked_from_a_failed_run_has_no_part_any_more(mode: str) -> None:
    state = after(RunState(2, 2, mode=mode), Joined("a"), Joined("b"), *round_of_two(1)[:3])
    state = after(state, Failed("its features"), Revoked("a"), Resumed())
    assert rounds_of(state).parts(state) == {"b": 1} and state.phase is Phase.READY


@pytest.mark.parametrize("done", range(6))
def test_devices_are_added_as_long_as_a_round_is_left_for_them(done: int) -> None:
    events = (Joined("a"), Joined("b"), *round_of_two(1), *round_of_two(2))
    state = after(RunState(2, 2), *events[:done])
    if state.round_num < 2:
        assert after(state, Grown(2, 3)).num_clients == 3
    else:
        with pytest.raises(RoundError, match="from round 3 on, and the run has 2"):
            advance(state, Grown(2, 3))
    with pytest.raises(RoundError, match="from round 2 on"):
        advance(finished("async"), Grown(1, 3))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("lost", [("a",), ("b",), ("a", "b")])
def test_parts_that_are_damaged_are_awaited_again(mode: str, lost: tuple[str, ...]) -> None:
    state = after(RunState(2, 1, mode=mode), Joined("a"), Joined("b"), *round_of_two(1)[:3])
    reasons = tuple((each, f"shard 0 of {each}") for each in lost)
    with pytest.raises(RoundError, match="c has no part in round 1"):
        advance(state, PartsLost(1, (*reasons, ("c", "shard 1"))))
    state = after(state, PartsLost(1, reasons))
    assert [each.text for each in state.history] == [f"asked for again: {text}" for _, text in reasons]
    rounds = rounds_of(state)
    assert [rounds.task_for(state, each, 1.0).action for each in lost] == ["train"] * len(lost)
    if mode == "async" and len(lost) == 1:
        # The others' step is not held up.
        assert state.phase is Phase.READY and lost[0] not in rounds.parts(state)
        return
    assert state.phase is Phase.COLLECTING
    state = after(state, *(Reported(each, 1) for each in lost), *round_of_two(1)[2:])
    assert state.phase is Phase.FINISHED


def test_the_history_is_kept_within_bounds_but_changes_are_all_kept() -> None:
    state = after(RunState(2, 1), *(Noted("trainer", str(number)) for number in range(200)))
    state = after(state, *(Grown(1, 2, (("edge_lr", float(n), n + 1.0),)) for n in range(60)))
    kinds = [each.kind for each in state.history]
    assert (kinds.count("trainer"), kinds.count("changed")) == (50, 60)
    assert state.history[0].text == "150"
    assert first_value(state.history, "edge_lr", 60.0) == 0.0 and first_value(state.history, "x", 3.0) == 3.0
    assert RunState.from_dict(state.to_dict()) == state


def test_entries_are_given_their_time_once() -> None:
    history = stamped(with_entry((), HistoryEntry("failed", "x", 1)), 5.0)
    assert [each.at for each in stamped(with_entry(history, HistoryEntry("resumed", "", 1)), 7.0)] == [
        5.0,
        7.0,
    ]
