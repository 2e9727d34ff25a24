"""The state machine of a run: only the drawn transitions, and a refused event changes nothing."""

import dataclasses
import json
import re
from typing import Any

import pytest

from gkt_core.errors import RoundClosedError, RoundError
from gkt_core.rounds.sampling import sample_clients
from server_app.rounds import sync
from server_app.rounds.machine import advance
from server_app.rounds.state import (
    Claimed,
    DeadlinePassed,
    Event,
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


def state_of(phase: Phase, **changes: Any) -> RunState:
    """A run of two devices and three rounds, in its second round unless it has not begun."""
    by_phase: dict[Phase, dict[str, Any]] = {
        Phase.JOINING: {"round_num": 0, "clients": ("a",), "reported": ()},
        Phase.COLLECTING: {"reported": ("b",)},
        Phase.FINISHED: {"round_num": 3},
        Phase.FAILED: {"error": "disk full"},
    }
    values = {
        "round_num": 2,
        "clients": ("a", "b"),
        "reported": ("a", "b"),
        **by_phase.get(phase, {}),
        **changes,
    }
    selected = () if phase is Phase.JOINING else values["clients"]
    return RunState(2, 3, phase=phase, **{"selected": selected, **values})


def after(state: RunState, *events: Event) -> RunState:
    for event in events:
        state = advance(state, event)
    return state


# --- one run from its beginning to its end


def test_a_run_of_two_devices_and_two_rounds() -> None:
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


def test_the_order_of_joins_and_reports_makes_no_difference() -> None:
    forward = after(RunState(2, 2), Joined("a"), Joined("b"), Reported("a", 1), Reported("b", 1))
    backward = after(RunState(2, 2), Joined("b"), Joined("a"), Reported("b", 1), Reported("a", 1))
    assert forward == backward


def test_a_trainer_that_died_leaves_the_round_to_the_next_one() -> None:
    state = after(state_of(Phase.READY), Claimed(2), Released(), Claimed(2), Trained(2))
    assert (state.phase, state.round_num, state.reported) == (Phase.COLLECTING, 3, ())


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.TRAINING])
def test_releasing_what_nobody_trains_changes_nothing(phase: Phase) -> None:
    assert advance(state_of(phase), Released()) == state_of(phase)


def test_the_first_reason_of_a_failure_is_kept() -> None:
    state = after(state_of(Phase.TRAINING), Failed("the loss is NaN"), Failed("the trainer died"))
    assert (state.phase, state.error, state.round_num) == (Phase.FAILED, "the loss is NaN", 2)


def test_a_finished_run_cannot_fail() -> None:
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
def test_a_refusal_names_the_event_and_the_state(phase: Phase, event: Event, words: list[str]) -> None:
    with pytest.raises(RoundError) as caught:
        advance(state_of(phase), event)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_closed_part_takes_no_more_uploads() -> None:
    ROUNDS.check_upload(state_of(Phase.COLLECTING), "a", 2)
    with pytest.raises(RoundError, match="b has closed its part of round 2"):
        ROUNDS.check_upload(state_of(Phase.COLLECTING), "b", 2)


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_no_event_changes_the_state_that_it_is_given(phase: Phase, event: Event) -> None:
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
def test_the_task_of_every_phase(state: RunState, client_id: str, action: str, reason: str) -> None:
    task = ROUNDS.task_for(state, client_id, 2.5)
    assert (task.action, task.reason) == (action, reason)
    assert task.retry_after_seconds == (2.5 if action == "wait" else 0)


@pytest.mark.parametrize(("answered", "soft_labels_round"), [((), 0), ((("a", 1),), 1), ((("b", 1),), 0)])
def test_a_device_trains_with_its_own_last_soft_labels(
    answered: tuple[tuple[str, int], ...], soft_labels_round: int
) -> None:
    task = ROUNDS.task_for(state_of(Phase.COLLECTING, answered=answered), "a", 1.0)
    assert (task.action, task.round_num, task.soft_labels_round) == ("train", 2, soft_labels_round)


# --- deadlines, draws, and devices that come too late


def test_a_round_goes_on_at_its_deadline_and_the_late_device_joins_the_next() -> None:
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


def test_a_run_begins_at_its_deadline_and_takes_in_who_comes_later() -> None:
    state = after(RunState(3, 2, min_clients=2), Joined("a"), DeadlinePassed(0))
    assert (state.phase, state.overdue) == (Phase.JOINING, True)
    state = after(state, Joined("c"))
    assert (state.phase, state.round_num, state.selected) == (Phase.COLLECTING, 1, ("a", "c"))
    state = after(state, Joined("b"))
    assert ROUNDS.task_for(state, "b", 1.0).action == "wait"
    state = after(state, Reported("a", 1), Reported("c", 1), Claimed(1), Trained(1))
    assert state.selected == ("a", "b", "c")


def test_devices_are_drawn_as_in_the_simulation() -> None:
    state = after(RunState(8, 4, client_fraction=0.5, seed=3), *(Joined(f"d{each}") for each in range(8)))
    for round_num in range(1, 5):
        drawn = sample_clients(state.clients, 0.5, seed=3, round_num=round_num)
        assert list(state.selected) == drawn and len(drawn) == 4
        for each in state.clients:
            assert ROUNDS.task_for(state, each, 1.0).action == ("train" if each in drawn else "wait")
        state = after(state, *(Reported(each, round_num) for each in drawn))
        state = after(state, Claimed(round_num), Trained(round_num))
    assert state.phase is Phase.FINISHED


def test_nobody_waits_for_a_revoked_device() -> None:
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
def test_the_state_as_a_dictionary(phase: Phase) -> None:
    state = state_of(phase)
    assert RunState.from_dict(state.to_dict()) == state
    assert RunState.from_dict(json.loads(json.dumps(state.to_dict()))) == state


def test_the_drawing_names_every_phase_and_every_transition() -> None:
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
