"""The state machine of a run: only the drawn transitions, and a refused event changes nothing."""

import dataclasses
import json
import re

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gkt_core.errors import RoundClosedError, RoundError
from gkt_core.rounds.sampling import sample_clients
from server_app.rounds import sync
from server_app.rounds.machine import advance, part_is_closed
from server_app.rounds.state import (
    Claimed,
    DeadlinePassed,
    Failed,
    Joined,
    Pardoned,
    Phase,
    Quarantined,
    Released,
    Reported,
    Revoked,
    RulesChanged,
    RunState,
    Trained,
)
from server_app.rounds.sync import SyncRounds

ROUNDS = SyncRounds()
DEVICES = ("a", "b", "c", "d")
EVENTS = (
    Joined("a"),
    Reported("a", 1),
    DeadlinePassed(1),
    RulesChanged(2, 5.0),
    Revoked("a"),
    Quarantined("a", 1, "noise"),
    Pardoned("a"),
    Claimed(1),
    Released(),
    Trained(1),
    Failed("why"),
)
# What may lead from one phase to another; all but the last three lines is the drawing in the docstring.
DRAWN = {
    ("joining", "collecting"): (Joined, DeadlinePassed, RulesChanged),
    ("collecting", "ready"): (Reported, DeadlinePassed, RulesChanged, Revoked),
    ("ready", "training"): (Claimed,),
    ("training", "ready"): (Released,),
    ("training", "collecting"): (Trained, Quarantined),
    ("training", "finished"): (Trained,),
    ("ready", "collecting"): (Revoked,),
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
    selected = () if phase is Phase.JOINING else values["clients"]
    return RunState(2, 3, phase=phase, **{"selected": selected, **values})


def after(state, *events):
    for event in events:
        state = advance(state, event)
    return state


# --- any sequence of events


class RunMachine(RuleBasedStateMachine):
    """Devices, a clock and a trainer do anything in any order; a naive model says what must come of it."""

    @initialize(
        num_clients=st.integers(1, 4),
        num_rounds=st.integers(1, 3),
        min_clients=st.integers(1, 4),
        fraction=st.sampled_from((1.0, 0.5)),
    )
    def begin(self, num_clients, num_rounds, min_clients, fraction):
        self.state = RunState(
            num_clients, num_rounds, min_clients=min(min_clients, num_clients), client_fraction=fraction
        )
        self.phase, self.round_num, self.error, self.overdue = "joining", 0, "", False
        self.joined, self.drawn, self.reported, self.revoked = set(), set(), set(), set()
        self.answered, self.held, self.trusted = {}, {}, set()

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
            assert type(event) in DRAWN[str(before.phase), str(self.state.phase)]

    def open_round(self, round_num):
        """The model draws as the simulation does."""
        self.phase, self.round_num, self.reported, self.overdue = "collecting", round_num, set(), False
        fraction, seed = self.state.client_fraction, self.state.seed
        joined = sorted(self.joined - set(self.held))
        self.drawn = (
            set(sample_clients(joined, fraction, seed=seed, round_num=round_num)) if joined else set()
        )

    def go_on(self):
        """Whether there is still something to wait for."""
        enough = self.state.min_clients
        if self.phase == "joining":
            wanted = enough if self.overdue else self.state.num_clients
            if len(self.joined) >= wanted:
                self.open_round(1)
        elif self.phase == "collecting" and not self.drawn and self.joined - set(self.held):
            self.open_round(self.round_num)
        elif self.phase == "collecting" and self.drawn:
            wanted = min(enough, len(self.drawn)) if self.overdue else len(self.drawn)
            if len(self.reported) >= wanted:
                self.phase = "ready"

    @rule(client_id=st.sampled_from(DEVICES))
    def join(self, client_id):
        room = len(self.joined) < self.state.num_clients and self.phase not in ("finished", "failed")
        known = client_id in self.joined
        accepted = known or (room and client_id not in self.revoked)
        self.send(Joined(client_id), accepted)
        if accepted and not known:
            self.joined.add(client_id)
            self.go_on()

    @rule(client_id=st.sampled_from(DEVICES), offset=st.sampled_from((0, 0, 0, 0, -2, -1, 1)))
    def report(self, client_id, offset):
        round_num = self.round_num + offset
        is_open = self.phase == "collecting" and offset == 0 and client_id in self.drawn
        held = client_id in self.held and self.phase != "failed"
        # Late ones change nothing, and learn what to do instead.
        past = round_num >= 1 and (offset < 0 or (offset == 0 and self.phase != "collecting"))
        nothing_to_do = held or (
            self.phase != "failed" and (past or (offset == 0 and client_id in self.reported))
        )
        accepted = client_id in self.joined and (nothing_to_do or is_open)
        before = self.state
        self.send(Reported(client_id, round_num), accepted)
        if accepted and nothing_to_do:
            assert self.state == before
        elif accepted:
            self.reported.add(client_id)
            self.go_on()

    @rule(offset=st.sampled_from((0, 0, -1, 1)))
    def deadline(self, offset):
        self.send(DeadlinePassed(self.round_num + offset), True)
        if offset == 0 and self.phase in ("joining", "collecting"):
            self.overdue = True
            self.go_on()

    @rule(min_clients=st.integers(1, 4))
    def other_rules(self, min_clients):
        min_clients = min(min_clients, self.state.num_clients)
        self.send(RulesChanged(min_clients, 5.0), True)
        self.go_on()

    @rule(client_id=st.sampled_from(DEVICES), revokes=st.integers(0, 5))
    def revoke(self, client_id, revokes):
        if revokes:  # rarely: a revoked device never comes back
            return
        before = self.state
        self.send(Revoked(client_id), client_id in self.joined | self.revoked)
        if client_id in self.revoked:
            assert self.state == before
        elif client_id in self.joined:
            self.joined.discard(client_id)
            self.held.pop(client_id, None)
            self.trusted.discard(client_id)
            self.revoked.add(client_id)
            if self.phase in ("collecting", "ready"):
                self.phase = "collecting"
                self.drawn.discard(client_id)
                self.reported.discard(client_id)
                self.go_on()

    @rule(client_id=st.sampled_from(DEVICES), offset=st.sampled_from((0, 0, 0, -1)))
    def quarantine(self, client_id, offset):
        in_training = self.phase == "training" and offset == 0
        self.send(
            Quarantined(client_id, self.round_num + offset, "noise"),
            in_training and client_id in self.reported,
        )
        if not in_training or client_id not in self.reported:
            return
        if client_id in self.joined:
            self.held[client_id] = "noise"
        self.drawn.discard(client_id)
        self.reported.discard(client_id)
        if not self.reported:
            self.phase = "collecting"
            self.go_on()

    @rule(client_id=st.sampled_from(DEVICES), trusted=st.booleans())
    def pardon(self, client_id, trusted):
        accepted = client_id in self.held
        self.send(Pardoned(client_id, trusted), accepted)
        if accepted:
            del self.held[client_id]
            self.trusted |= {client_id} if trusted else set()
            self.go_on()

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
        self.answered |= dict.fromkeys(self.reported, self.round_num)
        if self.round_num == self.state.rounds:
            self.phase = "finished"
        else:
            self.open_round(self.round_num + 1)

    @rule()
    def restart(self):
        """A server or a trainer that starts again finds the stored state and releases the round."""
        self.state = RunState.from_dict(json.loads(json.dumps(self.state.to_dict())))
        self.release()

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
        expected = dataclasses.replace(
            self.state,
            phase=Phase(self.phase),
            round_num=self.round_num,
            clients=tuple(sorted(self.joined)),
            selected=tuple(sorted(self.drawn)),
            reported=tuple(sorted(self.reported)),
            answered=tuple(sorted(self.answered.items())),
            revoked=tuple(sorted(self.revoked)),
            overdue=self.overdue,
            error=self.error,
            quarantined=tuple(sorted(self.held.items())),
            trusted=tuple(sorted(self.trusted)),
        )
        assert self.state == expected

    @invariant()
    def nobody_waits_for_ever(self):
        """A round that is overdue waits only while fewer devices reported than it needs."""
        if self.phase == "collecting" and self.drawn:
            assert len(self.reported) < len(self.drawn)
            assert not self.overdue or len(self.reported) < self.state.min_clients
        if self.phase in ("ready", "training"):
            assert self.reported and self.reported <= self.drawn

    @invariant()
    def every_device_has_a_task(self):
        for client_id in DEVICES:
            if client_id in self.revoked:
                assert ROUNDS.task_for(self.state, client_id, 0.5).action == "stop"
                continue
            if client_id not in self.joined:
                with pytest.raises(RoundError, match="has not joined"):
                    ROUNDS.task_for(self.state, client_id, 0.5)
                continue
            task = ROUNDS.task_for(self.state, client_id, 0.5)
            trains = self.phase == "collecting" and client_id in self.drawn - self.reported
            if client_id in self.held:
                assert client_id not in self.drawn
                ended = self.phase in ("finished", "failed")
                assert task.action == ("stop" if ended else "wait")
                assert self.phase == "failed" or "noise" in task.reason
                continue
            assert task.action == ("train" if trains else ACTIONS.get(self.phase, "wait"))
            assert task.retry_after_seconds == (0.5 if task.action == "wait" else 0)
            assert task.round_num == self.round_num
            assert task.soft_labels_round == self.answered.get(client_id, 0)
            assert not trains or task.soft_labels_round < task.round_num

    @invariant()
    def uploads_are_open_to_exactly_those_that_train(self):
        for client_id in DEVICES:
            trains = self.phase == "collecting" and client_id in (self.drawn & self.joined) - self.reported
            for round_num in range(self.round_num - 1, self.round_num + 2):
                if trains and round_num == self.round_num:
                    ROUNDS.check_upload(self.state, client_id, round_num)
                    assert not part_is_closed(self.state, client_id, round_num)
                else:
                    with pytest.raises(RoundError):
                        ROUNDS.check_upload(self.state, client_id, round_num)

    @invariant()
    def the_state_survives_json(self):
        assert RunState.from_dict(json.loads(json.dumps(self.state.to_dict()))) == self.state


TestAnySequence = RunMachine.TestCase
TestAnySequence.settings = settings(max_examples=120, stateful_step_count=50, deadline=None)


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
    ROUNDS.check_upload(state_of(Phase.COLLECTING), "a", 2)
    with pytest.raises(RoundError, match="b has closed its part of round 2"):
        ROUNDS.check_upload(state_of(Phase.COLLECTING), "b", 2)


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
    task = ROUNDS.task_for(state, client_id, 2.5)
    assert (task.action, task.reason) == (action, reason)
    assert task.retry_after_seconds == (2.5 if action == "wait" else 0)


@pytest.mark.parametrize(("answered", "soft_labels_round"), [((), 0), ((("a", 1),), 1), ((("b", 1),), 0)])
def test_a_device_trains_with_its_own_last_soft_labels(answered, soft_labels_round):
    task = ROUNDS.task_for(state_of(Phase.COLLECTING, answered=answered), "a", 1.0)
    assert (task.action, task.round_num, task.soft_labels_round) == ("train", 2, soft_labels_round)


# --- deadlines, draws, and devices that come too late


def test_a_round_goes_on_at_its_deadline_and_the_late_device_joins_the_next():
    state = after(RunState(3, 2, min_clients=2), *(Joined(each) for each in "abc"))
    state = after(state, Reported("a", 1), DeadlinePassed(1))
    assert (state.phase, state.overdue) == (Phase.COLLECTING, True), "one is less than two"
    state = after(state, Reported("c", 1))
    assert (state.phase, state.reported) == (Phase.READY, ("a", "c"))
    with pytest.raises(RoundClosedError):
        ROUNDS.check_upload(state, "b", 1)
    assert ROUNDS.task_for(state, "b", 1.0).action == "wait"
    state = after(state, Reported("b", 1), Claimed(1), Trained(1))
    assert (state.phase, state.selected, state.overdue) == (Phase.COLLECTING, ("a", "b", "c"), False)
    with pytest.raises(RoundClosedError):
        ROUNDS.check_upload(state, "b", 1)
    assert [ROUNDS.task_for(state, each, 1.0).soft_labels_round for each in "abc"] == [1, 0, 1]


def test_a_run_begins_at_its_deadline_and_takes_in_who_comes_later():
    state = after(RunState(3, 2, min_clients=2), Joined("a"), DeadlinePassed(0))
    assert (state.phase, state.overdue) == (Phase.JOINING, True)
    state = after(state, Joined("c"))
    assert (state.phase, state.round_num, state.selected) == (Phase.COLLECTING, 1, ("a", "c"))
    state = after(state, Joined("b"))
    assert ROUNDS.task_for(state, "b", 1.0).action == "wait"
    state = after(state, Reported("a", 1), Reported("c", 1), Claimed(1), Trained(1))
    assert state.selected == ("a", "b", "c")


def test_devices_are_drawn_as_in_the_simulation():
    state = after(RunState(8, 4, client_fraction=0.5, seed=3), *(Joined(f"d{each}") for each in range(8)))
    for round_num in range(1, 5):
        drawn = sample_clients(state.clients, 0.5, seed=3, round_num=round_num)
        assert list(state.selected) == drawn and len(drawn) == 4
        for each in state.clients:
            assert ROUNDS.task_for(state, each, 1.0).action == ("train" if each in drawn else "wait")
        state = after(state, *(Reported(each, round_num) for each in drawn))
        state = after(state, Claimed(round_num), Trained(round_num))
    assert state.phase is Phase.FINISHED


def test_nobody_waits_for_a_revoked_device():
    state = after(RunState(2, 2), Joined("a"), Joined("b"), Reported("a", 1), Revoked("b"))
    assert (state.phase, state.reported) == (Phase.READY, ("a",))
    with pytest.raises(RoundError, match="revoked"):
        advance(state, Joined("b"))
    with pytest.raises(RoundError, match="revoked"):
        ROUNDS.check_upload(state, "b", 1)
    state = after(state, Revoked("a"))
    assert (state.phase, state.selected, state.reported) == (Phase.COLLECTING, (), ())
    state = after(state, Joined("c"))
    assert (state.phase, state.round_num, state.selected) == (Phase.COLLECTING, 1, ("c",))


# --- the state as JSON, and the drawing


@pytest.mark.parametrize("phase", list(Phase))
def test_the_state_as_a_dictionary(phase):
    state = state_of(phase)
    assert RunState.from_dict(state.to_dict()) == state
    assert RunState.from_dict(json.loads(json.dumps(state.to_dict()))) == state


def test_the_drawing_names_every_phase_and_every_transition():
    drawing = sync.__doc__.split("::")[1].split("A run begins")[0]
    assert {str(phase) for phase in Phase} == set(re.findall("|".join(Phase), drawing))
    first = drawing.strip().splitlines()[0]
    drawn = re.findall(r"(\w+) -+(?:[\w ]+?)-+>(?= (\w+))", first)
    assert drawn == [("joining", "collecting"), ("collecting", "ready"), ("ready", "training")]
    assert re.search(r"released", drawing)
    assert re.search(r"trained, rounds left", drawing)
    assert re.search(r"finished <-- trained, last round", drawing)
    assert re.search(r"failed <-- from every phase but finished", drawing)
    assert set(drawn) < set(DRAWN)
