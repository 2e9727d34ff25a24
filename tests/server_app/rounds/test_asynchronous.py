"""The state machine without rounds: everybody does all rounds, nobody runs away, nothing waits for ever."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gkt_core.algorithms.fedgkt_async import device_slowness
from gkt_core.errors import RoundClosedError, RoundError
from gkt_core.rounds.staleness import may_begin
from server_app.rounds.asynchronous import AsyncRounds
from server_app.rounds.machine import advance, part_is_closed
from server_app.rounds.state import (
    Claimed,
    DeadlinePassed,
    Event,
    Failed,
    Grown,
    Joined,
    Pardoned,
    PartsLost,
    Phase,
    Quarantined,
    Released,
    Reported,
    Resumed,
    Revoked,
    RulesChanged,
    RunState,
    Trained,
)

ROUNDS = AsyncRounds()
DEVICES = ("a", "b", "c", "d")


def begun(num: int = 3, rounds: int = 2, **changes: Any) -> RunState:
    state = RunState(num, rounds, mode="async", **changes)
    return after(state, *(Joined(each) for each in DEVICES[:num]))


def after(state: RunState, *events: Event) -> RunState:
    for event in events:
        state = advance(state, event)
    return state


def stepped(state: RunState) -> RunState:
    """The trainer takes what there is."""
    return after(state, Claimed(state.round_num), Trained(state.round_num))


class AsyncMachine(RuleBasedStateMachine):
    """Devices, a clock, a person and a trainer do anything in any order, and processes restart in between."""

    @initialize(
        num_clients=st.integers(1, 4),
        num_rounds=st.integers(1, 3),
        max_staleness=st.integers(0, 2),
        min_clients=st.integers(1, 4),
    )
    def begin(self, num_clients: int, num_rounds: int, max_staleness: int, min_clients: int) -> None:
        self.state = RunState(
            num_clients,
            num_rounds,
            mode="async",
            max_staleness=max_staleness,
            min_clients=min(min_clients, num_clients),
        )
        self.trained: dict[str, list[int]] = {each: [] for each in DEVICES}

    def send(self, event: Event) -> bool:
        """Apply an event to a state that was stored and read again; a refusal changes nothing."""
        before = RunState.from_dict(json.loads(json.dumps(self.state.to_dict())))
        assert before == self.state
        try:
            self.state = advance(before, event)
        except RoundError:
            return False
        return True

    @rule(client_id=st.sampled_from(DEVICES))
    def join(self, client_id: str) -> None:
        self.send(Joined(client_id))

    @rule(client_id=st.sampled_from(DEVICES), offset=st.sampled_from((0, 0, 0, 0, -1, 1)))
    def report(self, client_id: str, offset: int) -> None:
        before = self.state
        own = dict(before.done).get(client_id, 0) + 1 + offset
        awaited = ROUNDS.is_working(before, client_id) and offset == 0
        closed = part_is_closed(before, client_id, own)
        assert not (awaited and closed)
        assert self.send(Reported(client_id, own)) is (awaited or closed)
        if awaited:
            assert ROUNDS.has_reported(self.state, client_id, own)
            assert self.send(Reported(client_id, own)), "a lost answer"
        else:
            assert self.state == before

    @rule(offset=st.sampled_from((0, 0, -1)))
    def deadline(self, offset: int) -> None:
        assert self.send(DeadlinePassed(self.state.round_num + offset))

    @rule(min_clients=st.integers(1, 4))
    def other_rules(self, min_clients: int) -> None:
        assert self.send(RulesChanged(min(min_clients, self.state.num_clients), 5.0))

    @rule(client_id=st.sampled_from(DEVICES), revokes=st.integers(0, 5))
    def revoke(self, client_id: str, revokes: int) -> None:
        if not revokes:  # rarely: a revoked device never comes back
            member = client_id in self.state.clients + self.state.revoked
            assert self.send(Revoked(client_id)) is member

    @rule(client_id=st.sampled_from(DEVICES), offset=st.sampled_from((0, 0, -1)))
    def quarantine(self, client_id: str, offset: int) -> None:
        before = self.state
        accepted = before.phase is Phase.TRAINING and client_id in before.in_step and offset == 0
        assert self.send(Quarantined(client_id, before.round_num + offset, "noise")) is accepted
        if accepted:
            assert client_id not in ROUNDS.parts(self.state) and not ROUNDS.is_working(self.state, client_id)

    @rule(client_id=st.sampled_from(DEVICES), trusted=st.booleans())
    def pardon(self, client_id: str, trusted: bool) -> None:
        held = client_id in dict(self.state.quarantined)
        assert self.send(Pardoned(client_id, trusted)) is held

    @rule(offset=st.sampled_from((0, 0, 0, 1)))
    def claim(self, offset: int) -> None:
        accepted = self.state.phase is Phase.READY and offset == 0
        again = self.state.in_step
        assert self.send(Claimed(self.state.round_num + offset)) is accepted
        assert not (accepted and again) or self.state.in_step == again, "the same step, the same numbers"

    @rule()
    def release(self) -> None:
        before = ROUNDS.parts(self.state)
        training = self.state.phase is Phase.TRAINING
        assert self.send(Released())
        assert not (training and before) or ROUNDS.parts(self.state) == before

    @rule()
    def train(self) -> None:
        before = self.state
        accepted = before.phase is Phase.TRAINING
        last = ROUNDS.is_last(before)
        assert self.send(Trained(before.round_num)) is accepted
        if accepted:
            assert (self.state.phase is Phase.FINISHED) is last
            for client_id, own in ROUNDS.parts(before).items():
                self.trained[client_id].append(own)
                assert self.state.last_answer(client_id) == own

    @rule(fails=st.integers(0, 9))
    def fail(self, fails: int) -> None:
        if not fails:  # rarely: nothing comes after it but a person
            before = self.state.phase
            assert self.send(Failed("disk full")) is (before is not Phase.FINISHED)

    @rule()
    def resume(self) -> None:
        has_failed = self.state.phase is Phase.FAILED
        assert self.send(Resumed()) is has_failed
        assert self.state.phase is not Phase.FAILED

    @rule(rounds=st.integers(0, 1), devices=st.integers(0, 1), grows=st.integers(0, 5))
    def grow(self, rounds: int, devices: int, grows: int) -> None:
        if grows:  # rarely: most runs end as they were planned
            return
        was_finished = self.state.phase is Phase.FINISHED
        accepted = not devices or not was_finished or rounds > 0
        event = Grown(self.state.rounds + rounds, self.state.num_clients + devices)
        assert self.send(event) is accepted
        assert (self.state.phase is Phase.FINISHED) is (was_finished and not rounds)

    @rule(lost=st.sets(st.sampled_from(DEVICES), min_size=1, max_size=2), offset=st.sampled_from((0, 0, -1)))
    def lose(self, lost: set[str], offset: int) -> None:
        before = self.state
        accepted = before.phase is Phase.TRAINING and offset == 0 and lost <= set(before.in_step)
        reasons = tuple((each, "cut") for each in lost)
        assert self.send(PartsLost(before.round_num + offset, reasons)) is accepted
        if accepted:
            assert not lost & ROUNDS.parts(self.state).keys()
            assert all(ROUNDS.is_working(self.state, each) for each in lost & set(before.clients))

    @invariant()
    def nobody_runs_away(self) -> None:
        ahead = ROUNDS.staleness(self.state)
        for client_id, more in ahead.items():
            own = dict(self.state.done).get(client_id, 0)
            assert own <= self.state.rounds
            if client_id not in self.state.late and not self.state.revoked:
                assert more <= self.state.max_staleness + 1
        assert 0 <= ROUNDS.shown_round(self.state) <= self.state.rounds

    @invariant()
    def no_round_is_trained_twice(self) -> None:
        for numbers in self.trained.values():
            assert numbers == sorted(set(numbers))

    @invariant()
    def a_device_is_in_one_place(self) -> None:
        places = (*self.state.selected, *self.state.reported, *self.state.in_step)
        held = dict(self.state.quarantined)
        assert len(set(places)) == len(places)
        assert not held.keys() & set(places)
        assert set(self.state.late) <= {*self.state.selected, *self.state.reported, *self.state.in_step}

    @invariant()
    def somebody_has_something_to_do(self) -> None:
        """A run that goes on waits for a device or for the trainer, unless everybody is held or gone."""
        if self.state.phase is Phase.COLLECTING and self.state.active:
            assert self.state.selected
        if self.state.phase is Phase.READY:
            claimed = advance(self.state, Claimed(self.state.round_num))
            assert ROUNDS.parts(self.state) or ROUNDS.is_last(claimed)

    @invariant()
    def tasks_and_uploads_agree(self) -> None:
        for client_id in self.state.clients:
            task = ROUNDS.task_for(self.state, client_id, 0.5)
            assert (task.action == "train") is ROUNDS.is_working(self.state, client_id)
            if task.action == "train":
                ROUNDS.check_upload(self.state, client_id, task.round_num)
                assert task.soft_labels_round < task.round_num <= self.state.rounds
            if self.state.phase in (Phase.FINISHED, Phase.FAILED):
                assert task.action in ("finish", "stop")


TestAnySequence = AsyncMachine.TestCase
TestAnySequence.settings = settings(max_examples=80, stateful_step_count=40)


def test_a_step_trains_on_what_has_arrived_and_uploads_go_on_meanwhile() -> None:
    state = after(begun(), Reported("b", 1))
    assert (state.phase, ROUNDS.parts(state)) == (Phase.READY, {"b": 1})
    state = after(state, Claimed(1), Reported("a", 1))
    assert (state.phase, ROUNDS.parts(state), state.reported) == (Phase.TRAINING, {"b": 1}, ("a",))
    state = after(state, Released(), Claimed(1))
    assert ROUNDS.parts(state) == {"b": 1}, "a restarted trainer takes the same step"
    state = after(state, Trained(1))
    assert (state.phase, state.round_num, ROUNDS.parts(state)) == (Phase.READY, 2, {"a": 1})
    task = ROUNDS.task_for(state, "b", 1.0)
    assert (task.action, task.round_num, task.soft_labels_round) == ("train", 2, 1)


def test_who_is_too_far_ahead_waits_for_the_slowest() -> None:
    state = begun(num=2, rounds=5, max_staleness=1)
    for number in (1, 2):
        state = stepped(after(state, Reported("a", number)))
    task = ROUNDS.task_for(state, "a", 1.0)
    assert (task.action, task.reason) == ("wait", "it is 2 rounds ahead of the slowest device")
    assert ROUNDS.staleness(state) == {"a": 2, "b": 0}
    state = stepped(after(state, Reported("b", 1)))
    assert ROUNDS.task_for(state, "a", 1.0).action == "train"


def test_a_vanished_device_is_waited_for_until_the_deadline_and_may_come_back() -> None:
    state = begun(num=2, rounds=4, max_staleness=0)
    state = stepped(after(state, Reported("a", 1)))
    assert ROUNDS.task_for(state, "a", 1.0).action == "wait"
    state = after(state, DeadlinePassed(2))
    assert (state.late, ROUNDS.task_for(state, "a", 1.0).action) == (("b",), "train")
    for number in (2, 3):
        state = stepped(after(state, Reported("a", number)))
    state = stepped(after(state, Reported("b", 1)))
    assert (state.late, dict(state.done)) == ((), {"a": 3, "b": 3})
    state = stepped(after(state, Reported("a", 4)))
    state = stepped(after(state, Reported("b", 4)))
    assert state.phase is Phase.FINISHED


def test_a_run_ends_without_a_device_that_never_comes_back() -> None:
    state = begun(num=2, rounds=1, max_staleness=0)
    state = stepped(after(state, Reported("a", 1)))
    assert state.phase is Phase.COLLECTING
    state = after(state, DeadlinePassed(2))
    assert state.phase is Phase.READY
    assert ROUNDS.parts(state) == {}, "a last step on nothing publishes the model"
    assert ROUNDS.is_last(after(state, Claimed(2)))
    assert stepped(state).phase is Phase.FINISHED


def test_a_quarantined_device_has_spent_its_round() -> None:
    state = after(begun(), Reported("a", 1), Claimed(1), Quarantined("a", 1, "noise"))
    assert (state.phase, dict(state.done)["a"]) == (Phase.COLLECTING, 1)
    with pytest.raises(RoundClosedError, match="noise"):
        ROUNDS.check_upload(state, "a", 2)
    assert part_is_closed(state, "a", 1) and ROUNDS.task_for(state, "a", 1.0).action == "wait"
    state = after(state, Pardoned("a"))
    task = ROUNDS.task_for(state, "a", 1.0)
    assert (task.action, task.round_num) == ("train", 2)


@pytest.mark.parametrize("max_staleness", [0, 1, 3])
def test_the_order_of_events_is_the_simulations(max_staleness: int) -> None:
    """The server's machine driven by the simulation's clock lets devices begin when the simulation does."""
    num, rounds = 4, 5
    durations = device_slowness(num, 5)
    per_step = float(durations.mean() / num)
    state = begun(num=num, rounds=rounds, max_staleness=max_staleness)
    clock, arrives, trained = 0.0, durations.copy(), np.zeros(num, int)
    while trained.min() < rounds:
        clock = max(clock, float(arrives.min()))
        arrived = np.flatnonzero(arrives <= clock)
        for place in arrived:
            assert ROUNDS.task_for(state, DEVICES[place], 1.0).round_num == trained[place] + 1
            state = after(state, Reported(DEVICES[place], int(trained[place]) + 1))
        assert ROUNDS.parts(state) == {DEVICES[place]: trained[place] + 1 for place in arrived}
        state = stepped(state)
        clock += len(arrived) * per_step
        trained[arrived] += 1
        arrives[arrived] = np.inf
        slowest = int(trained.min())
        for place in np.flatnonzero(np.isinf(arrives)):
            begins = may_begin(int(trained[place]), slowest, rounds=rounds, max_staleness=max_staleness)
            assert ROUNDS.is_working(state, DEVICES[place]) is begins
            if begins:
                arrives[place] = clock + durations[place]
    assert (state.phase, dict(state.done)) == (Phase.FINISHED, dict.fromkeys(DEVICES, rounds))


def test_no_event_changes_the_state_that_it_is_given() -> None:
    given = after(begun(), Reported("a", 1))
    kept = dataclasses.replace(given)
    after(given, Claimed(1), Reported("b", 1), Trained(1))
    assert given == kept
