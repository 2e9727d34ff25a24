"""Any sequence of events of a run with rounds, against a naive model of what must come of it."""

import dataclasses
import json

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gkt_core.errors import RoundError
from gkt_core.rounds.sampling import sample_clients
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
from tests.server_app.rounds.test_sync import ACTIONS, DEVICES, DRAWN, ROUNDS

# What no run goes through by itself.
BESIDE = (Failed, Resumed, Grown, PartsLost)


class RunMachine(RuleBasedStateMachine):
    """Devices, a clock and a trainer do anything in any order; a naive model says what must come of it."""

    @initialize(
        num_clients=st.integers(1, 4),
        num_rounds=st.integers(1, 3),
        min_clients=st.integers(1, 4),
        fraction=st.sampled_from((1.0, 0.5)),
    )
    def begin(self, num_clients: int, num_rounds: int, min_clients: int, fraction: float) -> None:
        self.state = RunState(
            num_clients, num_rounds, min_clients=min(min_clients, num_clients), client_fraction=fraction
        )
        self.phase, self.round_num, self.error, self.overdue = "joining", 0, "", False
        self.joined: set[str] = set()
        self.drawn: set[str] = set()
        self.reported: set[str] = set()
        self.revoked: set[str] = set()
        self.trusted: set[str] = set()
        self.answered: dict[str, int] = {}
        self.held: dict[str, str] = {}

    def send(self, event: Event, accepted: bool) -> None:
        """Apply an event, which the model expects to be taken or refused."""
        before = self.state
        try:
            self.state = advance(before, event)
        except RoundError as error:
            assert not accepted, f"{event} was refused: {error}"
            return
        assert accepted, f"{event} was taken by {before}"
        assert self.state.round_num >= before.round_num
        if self.state.phase is not before.phase and not isinstance(event, BESIDE):
            assert type(event) in DRAWN[str(before.phase), str(self.state.phase)]

    def open_round(self, round_num: int) -> None:
        """The model draws as the simulation does."""
        self.phase, self.round_num, self.reported, self.overdue = "collecting", round_num, set(), False
        fraction, seed = self.state.client_fraction, self.state.seed
        joined = sorted(self.joined - set(self.held))
        self.drawn = (
            set(sample_clients(joined, fraction, seed=seed, round_num=round_num)) if joined else set()
        )

    def go_on(self) -> None:
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
    def join(self, client_id: str) -> None:
        room = len(self.joined) < self.state.num_clients and self.phase not in ("finished", "failed")
        known = client_id in self.joined
        accepted = known or (room and client_id not in self.revoked)
        self.send(Joined(client_id), accepted)
        if accepted and not known:
            self.joined.add(client_id)
            self.go_on()

    @rule(client_id=st.sampled_from(DEVICES), offset=st.sampled_from((0, 0, 0, 0, -2, -1, 1)))
    def report(self, client_id: str, offset: int) -> None:
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
    def deadline(self, offset: int) -> None:
        self.send(DeadlinePassed(self.round_num + offset), True)
        if offset == 0 and self.phase in ("joining", "collecting"):
            self.overdue = True
            self.go_on()

    @rule(min_clients=st.integers(1, 4))
    def other_rules(self, min_clients: int) -> None:
        min_clients = min(min_clients, self.state.num_clients)
        self.send(RulesChanged(min_clients, 5.0), True)
        self.go_on()

    @rule(client_id=st.sampled_from(DEVICES), revokes=st.integers(0, 5))
    def revoke(self, client_id: str, revokes: int) -> None:
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
            if self.phase in ("collecting", "ready", "failed"):
                self.phase = "failed" if self.phase == "failed" else "collecting"
                self.drawn.discard(client_id)
                self.reported.discard(client_id)
                self.go_on()

    @rule(client_id=st.sampled_from(DEVICES), offset=st.sampled_from((0, 0, 0, -1)))
    def quarantine(self, client_id: str, offset: int) -> None:
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
    def pardon(self, client_id: str, trusted: bool) -> None:
        accepted = client_id in self.held
        self.send(Pardoned(client_id, trusted), accepted)
        if accepted:
            del self.held[client_id]
            self.trusted |= {client_id} if trusted else set()
            self.go_on()

    @rule(offset=st.sampled_from((0, 0, 0, -1, 1)))
    def claim(self, offset: int) -> None:
        accepted = self.phase == "ready" and offset == 0
        self.send(Claimed(self.round_num + offset), accepted)
        self.phase = "training" if accepted else self.phase

    @rule()
    def release(self) -> None:
        self.send(Released(), True)
        self.phase = "ready" if self.phase == "training" else self.phase

    @rule(offset=st.sampled_from((0, 0, 0, -1, 1)))
    def train(self, offset: int) -> None:
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
    def restart(self) -> None:
        """A server or a trainer that starts again finds the stored state and releases the round."""
        self.state = RunState.from_dict(json.loads(json.dumps(self.state.to_dict())))
        self.release()

    @rule(error=st.sampled_from(("diverged", "disk full")), fails=st.integers(0, 9))
    def fail(self, error: str, fails: int) -> None:
        if fails:  # rarely: nothing comes after it but a person
            return
        accepted = self.phase != "finished"
        self.send(Failed(error), accepted)
        if accepted:
            self.phase, self.error = "failed", self.error or error

    @rule()
    def resume(self) -> None:
        accepted = self.phase == "failed"
        self.send(Resumed(), accepted)
        if accepted:
            self.phase, self.error = "collecting" if self.round_num else "joining", ""
            self.go_on()

    @rule(rounds=st.integers(0, 1), devices=st.integers(0, 1), grows=st.integers(0, 5))
    def grow(self, rounds: int, devices: int, grows: int) -> None:
        if grows:  # rarely: most runs end as they were planned
            return
        after = Grown(self.state.rounds + rounds, self.state.num_clients + devices)
        was_finished = self.phase == "finished"
        accepted = not devices or after.rounds > self.round_num + was_finished
        self.send(after, accepted)
        if accepted and was_finished and rounds:
            self.open_round(self.round_num + 1)
        elif accepted:
            self.go_on()

    @rule(lost=st.sets(st.sampled_from(DEVICES), min_size=1, max_size=2), offset=st.sampled_from((0, 0, -1)))
    def lose(self, lost: set[str], offset: int) -> None:
        accepted = self.phase == "training" and offset == 0 and lost <= self.reported
        self.send(PartsLost(self.round_num + offset, tuple((each, "cut") for each in lost)), accepted)
        if accepted:
            self.phase = "collecting"
            self.drawn -= lost - self.joined
            self.reported -= lost
            self.go_on()

    @invariant()
    def the_state_is_what_the_model_says(self) -> None:
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
    def nobody_waits_for_ever(self) -> None:
        """A round that is overdue waits only while fewer devices reported than it needs."""
        if self.phase == "collecting" and self.drawn:
            assert len(self.reported) < len(self.drawn)
            assert not self.overdue or len(self.reported) < self.state.min_clients
        if self.phase in ("ready", "training"):
            assert self.reported and self.reported <= self.drawn

    @invariant()
    def every_device_has_a_task(self) -> None:
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
    def uploads_are_open_to_exactly_those_that_train(self) -> None:
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
    def the_state_survives_json(self) -> None:
        assert RunState.from_dict(json.loads(json.dumps(self.state.to_dict()))) == self.state


TestAnySequence = RunMachine.TestCase
TestAnySequence.settings = settings(max_examples=120, stateful_step_count=50)
