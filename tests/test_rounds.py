"""The state machine of a run: only the drawn transitions, and a refused event changes nothing."""

import dataclasses
import json
import re

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gkt_core.errors import RoundError
from server_app import rounds
from server_app.rounds import (
    Claimed,
    Failed,
    Joined,
    Phase,
    Released,
    Reported,
    RunState,
    Trained,
    advance,
    check_upload,
    task_for,
)

DEVICES = ("a", "b", "c", "d")
EVENTS = (Joined("a"), Reported("a", 1), Claimed(1), Released(), Trained(1), Failed("why"))
# The drawing in the module's docstring; a test below reads the drawing itself.
DRAWN = {
    ("joining", "collecting"): Joined,
    ("collecting", "ready"): Reported,
    ("ready", "training"): Claimed,
    ("training", "ready"): Released,
    ("training", "collecting"): Trained,
    ("training", "finished"): Trained,
}
ACTIONS = {"joining": "wait", "ready": "wait", "training": "wait", "finished": "finish", "failed": "stop"}


def state_of(phase, **changes):
    """A run of two devices and three rounds, in its second round unless it has not begun."""
    values = {
        Phase.JOINING: {"round_num": 0, "clients": ("a",), "reported": ()},
        Phase.COLLECTING: {"reported": ("b",)},
        Phase.FINISHED: {"round_num": 3},
        Phase.FAILED: {"error": "disk full"},
    }.get(phase, {})
    values = {"round_num": 2, "clients": ("a", "b"), "reported": ("a", "b"), **values, **changes}
    return RunState(2, 3, phase=phase, **values)


def after(state, *events):
    for event in events:
        state = advance(state, event)
    return state


# --- any sequence of events


class RunMachine(RuleBasedStateMachine):
    """Devices and a trainer do anything in any order; a naive model says what must come of it."""

    @initialize(num_clients=st.integers(1, 3), num_rounds=st.integers(1, 3))
    def begin(self, num_clients, num_rounds):
        self.state = RunState(num_clients, num_rounds)
        self.phase, self.round_num, self.error = "joining", 0, ""
        self.joined, self.reported = set(), set()

    def send(self, event, accepted):
        """Apply an event, which the model expects to be taken or refused."""
        before = self.state
        try:
            self.state = advance(before, event)
        except RoundError as error:
            assert not accepted, f"{event} was refused: {error}"
            return
        assert accepted, f"{event} was taken by {before}"
        assert self.state.round_num >= before.round_num
        if self.state.phase is not before.phase and self.state.phase is not Phase.FAILED:
            assert DRAWN[str(before.phase), str(self.state.phase)] is type(event)

    @rule(client_id=st.sampled_from(DEVICES))
    def join(self, client_id):
        accepted = client_id in self.joined or self.phase == "joining"
        self.send(Joined(client_id), accepted)
        if accepted:
            self.joined.add(client_id)
            if self.phase == "joining" and len(self.joined) == self.state.num_clients:
                self.phase, self.round_num = "collecting", 1

    @rule(client_id=st.sampled_from(DEVICES), offset=st.sampled_from((0, 0, 0, 0, -2, -1, 1)))
    def report(self, client_id, offset):
        round_num = self.round_num + offset
        repeated = round_num >= 1 and (offset < 0 or (offset == 0 and client_id in self.reported))
        fresh = self.phase == "collecting" and offset == 0
        accepted = client_id in self.joined and (repeated or fresh)
        before = self.state
        self.send(Reported(client_id, round_num), accepted)
        if accepted and repeated:
            assert self.state == before
        elif accepted:
            self.reported.add(client_id)
            if self.reported == self.joined:
                self.phase = "ready"

    @rule(offset=st.sampled_from((0, 0, 0, -1, 1)))
    def claim(self, offset):
        accepted = self.phase == "ready" and offset == 0
        self.send(Claimed(self.round_num + offset), accepted)
        self.phase = "training" if accepted else self.phase

    @rule()
    def release(self):
        self.send(Released(), True)
        self.phase = "ready" if self.phase == "training" else self.phase

    @rule(offset=st.sampled_from((0, 0, 0, -1, 1)))
    def train(self, offset):
        accepted = self.phase == "training" and offset == 0
        self.send(Trained(self.round_num + offset), accepted)
        if not accepted:
            return
        if self.round_num == self.state.rounds:
            self.phase = "finished"
        else:
            self.phase, self.reported = "collecting", set()
            self.round_num += 1

    @rule(error=st.sampled_from(("diverged", "disk full")), fails=st.integers(0, 9))
    def fail(self, error, fails):
        if fails:  # rarely: nothing comes after it
            return
        accepted = self.phase != "finished"
        self.send(Failed(error), accepted)
        if accepted:
            self.phase, self.error = "failed", self.error or error

    @invariant()
    def the_state_is_what_the_model_says(self):
        expected = RunState(
            self.state.num_clients,
            self.state.rounds,
            Phase(self.phase),
            self.round_num,
            tuple(sorted(self.joined)),
            tuple(sorted(self.reported)),
            self.error,
        )
        assert self.state == expected

    @invariant()
    def every_device_has_a_task(self):
        for client_id in DEVICES:
            if client_id not in self.joined:
                with pytest.raises(RoundError, match="has not joined"):
                    task_for(self.state, client_id, 0.5)
                continue
            task = task_for(self.state, client_id, 0.5)
            trains = self.phase == "collecting" and client_id not in self.reported
            assert task.action == ("train" if trains else ACTIONS.get(self.phase, "wait"))
            assert task.retry_after_seconds == (0.5 if task.action == "wait" else 0)
            assert (task.round_num, task.soft_labels_round) == (self.round_num, max(0, self.round_num - 1))

    @invariant()
    def uploads_are_open_to_exactly_those_that_train(self):
        for client_id in DEVICES:
            trains = self.phase == "collecting" and client_id in self.joined - self.reported
            for round_num in range(self.round_num - 1, self.round_num + 2):
                if trains and round_num == self.round_num:
                    check_upload(self.state, client_id, round_num)
                else:
                    with pytest.raises(RoundError):
                        check_upload(self.state, client_id, round_num)

    @invariant()
    def the_state_survives_json(self):
        assert RunState.from_dict(json.loads(json.dumps(self.state.to_dict()))) == self.state


TestAnySequence = RunMachine.TestCase
TestAnySequence.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


# --- one run from its beginning to its end


def test_a_run_of_two_devices_and_two_rounds():
    state = RunState(num_clients=2, rounds=2)
    assert (state.phase, state.round_num) == (Phase.JOINING, 0)
    state = after(state, Joined("b"))
    assert (state.phase, state.clients) == (Phase.JOINING, ("b",))
    state = after(state, Joined("a"))
    assert (state.phase, state.round_num, state.clients) == (Phase.COLLECTING, 1, ("a", "b"))
    for round_num in (1, 2):
        state = after(state, Reported("b", round_num))
        assert (state.phase, state.reported) == (Phase.COLLECTING, ("b",))
        state = after(state, Reported("a", round_num))
        assert (state.phase, state.reported) == (Phase.READY, ("a", "b"))
        state = after(state, Claimed(round_num))
        assert state.phase is Phase.TRAINING
        state = after(state, Trained(round_num))
    assert (state.phase, state.round_num, state.error) == (Phase.FINISHED, 2, "")


def test_the_order_of_joins_and_reports_makes_no_difference():
    forward = after(RunState(2, 2), Joined("a"), Joined("b"), Reported("a", 1), Reported("b", 1))
    backward = after(RunState(2, 2), Joined("b"), Joined("a"), Reported("b", 1), Reported("a", 1))
    assert forward == backward


def test_a_trainer_that_died_leaves_the_round_to_the_next_one():
    state = after(state_of(Phase.READY), Claimed(2), Released(), Claimed(2), Trained(2))
    assert (state.phase, state.round_num, state.reported) == (Phase.COLLECTING, 3, ())


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.TRAINING])
def test_releasing_what_nobody_trains_changes_nothing(phase):
    assert advance(state_of(phase), Released()) == state_of(phase)


def test_the_first_reason_of_a_failure_is_kept():
    state = after(state_of(Phase.TRAINING), Failed("the loss is NaN"), Failed("the trainer died"))
    assert (state.phase, state.error, state.round_num) == (Phase.FAILED, "the loss is NaN", 2)


def test_a_finished_run_cannot_fail():
    with pytest.raises(RoundError, match="finished"):
        advance(state_of(Phase.FINISHED), Failed("the trainer died"))


# --- what is refused, and what the refused are told


@pytest.mark.parametrize(
    ("phase", "event", "words"),
    [
        (Phase.COLLECTING, Joined("c"), ["c", "all 2 devices", "--client-id"]),
        (Phase.COLLECTING, Reported("c", 2), ["c", "has not joined"]),
        (Phase.COLLECTING, Reported("a", 3), ["round 3 is not open", "collecting in round 2"]),
        (Phase.JOINING, Reported("a", 0), ["round 0 is not open", "joining"]),
        (Phase.TRAINING, Reported("a", 3), ["round 3 is not open", "training in round 2"]),
        (Phase.COLLECTING, Claimed(2), ["Claimed", "collecting in round 2"]),
        (Phase.READY, Claimed(1), ["Claimed", "ready in round 2"]),
        (Phase.READY, Trained(2), ["Trained", "ready in round 2"]),
        (Phase.TRAINING, Trained(3), ["Trained", "training in round 2"]),
        (Phase.FAILED, Claimed(2), ["Claimed", "failed in round 2"]),
    ],
)
def test_a_refusal_names_the_event_and_the_state(phase, event, words):
    with pytest.raises(RoundError) as caught:
        advance(state_of(phase), event)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_closed_part_takes_no_more_uploads():
    check_upload(state_of(Phase.COLLECTING), "a", 2)
    with pytest.raises(RoundError, match="b has closed its part of round 2"):
        check_upload(state_of(Phase.COLLECTING), "b", 2)


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_no_event_changes_the_state_that_it_is_given(phase, event):
    given = state_of(phase)
    kept = dataclasses.replace(given)
    try:
        found = advance(given, event)
    except RoundError:
        found = given
    assert given == kept
    assert found.num_clients == given.num_clients and found.rounds == given.rounds


# --- what devices are told


@pytest.mark.parametrize(
    ("state", "client_id", "action", "reason"),
    [
        (state_of(Phase.JOINING), "a", "wait", "1 of 2 devices have joined"),
        (state_of(Phase.COLLECTING), "a", "train", "round 2 of 3"),
        (state_of(Phase.COLLECTING), "b", "wait", "1 of 2 devices have reported"),
        (state_of(Phase.READY), "a", "wait", "the server trains on round 2"),
        (state_of(Phase.TRAINING), "a", "wait", "the server trains on round 2"),
        (state_of(Phase.FINISHED), "a", "finish", "the run is finished"),
        (state_of(Phase.FAILED), "a", "stop", "disk full"),
    ],
)
def test_the_task_of_every_phase(state, client_id, action, reason):
    task = task_for(state, client_id, 2.5)
    assert (task.action, task.reason) == (action, reason)
    assert task.retry_after_seconds == (2.5 if action == "wait" else 0)


@pytest.mark.parametrize(("round_num", "soft_labels_round"), [(1, 0), (2, 1), (3, 2)])
def test_a_round_trains_with_the_soft_labels_of_the_one_before(round_num, soft_labels_round):
    task = task_for(state_of(Phase.COLLECTING, round_num=round_num), "a", 1.0)
    assert (task.round_num, task.soft_labels_round) == (round_num, soft_labels_round)


# --- the state as JSON, and the drawing


@pytest.mark.parametrize("phase", list(Phase))
def test_the_state_as_a_dictionary(phase):
    state = state_of(phase)
    assert RunState.from_dict(state.to_dict()) == state
    assert RunState.from_dict(json.loads(json.dumps(state.to_dict()))) == state


def test_the_drawing_names_every_phase_and_every_transition():
    drawing = rounds.__doc__.split("::")[1].split("Every event")[0]
    assert {str(phase) for phase in Phase} == set(re.findall("|".join(Phase), drawing))
    first = drawing.strip().splitlines()[0]
    drawn = re.findall(r"(\w+) --([\w ]+)-->(?= (\w+))", first)
    assert [(begin, end) for begin, _, end in drawn] == [
        ("joining", "collecting"),
        ("collecting", "ready"),
        ("ready", "training"),
    ]
    assert re.search(r"released", drawing)
    assert re.search(r"trained, rounds left", drawing)
    assert re.search(r"finished <-- trained, last round", drawing)
    assert re.search(r"failed <-- from every phase but finished", drawing)
