"""Say what holds in every mode of who is a member, who is quarantined, and what the trainer may do."""

from __future__ import annotations

import dataclasses

from gkt_core.errors import RoundClosedError, RoundError
from gkt_core.wire.protocol import Task
from server_app.rounds.state import PAUSED, STOPPED, Deserted, Event, Failed, Phase, RunState


def without(client_ids: tuple[str, ...], client_id: str) -> tuple[str, ...]:
    """All but one."""
    return tuple(each for each in client_ids if each != client_id)


def joined(state: RunState, client_id: str) -> RunState:
    """Make a device a member.

    Raises:
        RoundError: It was revoked, is one too many, or comes too late.
    """
    if client_id in state.revoked:
        raise RoundError(f"{client_id} was revoked and cannot join this run again")
    if len(state.clients) >= state.num_clients:
        raise RoundError(
            f"{client_id} cannot join: all {state.num_clients} devices of this run have joined. "
            "Was it started under another --client-id or --state-dir before?"
        )
    if state.phase in (Phase.FINISHED, Phase.FAILED):
        raise RoundError(f"{client_id} cannot join: the run is {state.phase}")
    if state.halt == STOPPED:
        raise RoundError(f"{client_id} cannot join: {halt_words(state)}")
    return dataclasses.replace(state, clients=tuple(sorted((*state.clients, client_id))))


def holding(state: RunState, client_id: str, upload_round: int) -> RunState:
    """Remember which upload of a device is to be trained on; 0 for nothing to remember, or to forget."""
    if upload_round == state.last_upload(client_id):
        return state
    pairs = {**dict(state.uploads), client_id: upload_round}
    kept = sorted((each, number) for each, number in pairs.items() if number)
    return dataclasses.replace(state, uploads=tuple(kept))


def revoked(state: RunState, client_id: str) -> RunState:
    """End a device's membership; what that means for the open round is for the mode to say.

    Raises:
        RoundError: It is no member.
    """
    if client_id not in state.clients:
        raise RoundError(f"{client_id} has not joined this run: there is nothing to revoke")
    return dataclasses.replace(
        state,
        clients=without(state.clients, client_id),
        revoked=tuple(sorted((*state.revoked, client_id))),
        quarantined=tuple(pair for pair in state.quarantined if pair[0] != client_id),
        trusted=without(state.trusted, client_id),
    )


def held(state: RunState, client_id: str, reason: str, taking_part: tuple[str, ...]) -> RunState:
    """Quarantine a device of the step that is being trained; what that means for the round is for the mode.

    Raises:
        RoundError: It does not take part in this step.
    """
    if client_id not in taking_part:
        raise RoundError(f"{client_id} has no part in {_where(state)}: there is nothing to quarantine")
    if client_id not in state.clients:
        # Revoked meanwhile.
        return state
    pairs = {**dict(state.quarantined), client_id: reason}
    # Should a person release it, it uploads anew.
    state = holding(state, client_id, 0)
    return dataclasses.replace(state, quarantined=tuple(sorted(pairs.items())))


def pardoned(state: RunState, client_id: str, trusted: bool) -> RunState:
    """End a device's quarantine, and check it no more if a person vouches for it.

    Raises:
        RoundError: It is not quarantined.
    """
    if client_id not in dict(state.quarantined):
        raise RoundError(f"{client_id} is not quarantined: there is nothing to release")
    return dataclasses.replace(
        state,
        quarantined=tuple(pair for pair in state.quarantined if pair[0] != client_id),
        trusted=tuple(sorted({*state.trusted, client_id})) if trusted else state.trusted,
    )


_NOBODY = "nobody is left to train with"


def nobody_left(state: RunState) -> str:
    """Why a run must stop that all its devices have left; empty where somebody is there, or may still come.

    As long as devices may join, that is until the deadline where there is one, a run waits for them.
    """
    may_come = len(state.clients) < state.num_clients and not state.overdue
    if state.phase is not Phase.COLLECTING or state.active or may_come or state.halt:
        return ""
    held = [f"{client_id} is quarantined: {reason}" for client_id, reason in state.quarantined]
    gone = [f"{client_id} was revoked" for client_id in state.revoked]
    return (
        f"{_NOBODY}: {'; '.join([*held, *gone])}. A device that gkt clients release takes back "
        "(--trust: without checks) goes on with this run"
    )


def taken_up(state: RunState) -> RunState:
    """Let a run go on that had stopped because nobody was left, now that a device is pardoned."""
    if state.phase is Phase.FAILED and state.error.startswith(_NOBODY):
        return dataclasses.replace(state, phase=Phase.COLLECTING, error="")
    return state


def may_be_late(state: RunState, round_num: int) -> bool:
    """Whether a deadline of this round (0: the time to join) means anything now."""
    waits = state.phase in (Phase.JOINING, Phase.COLLECTING) and not state.halt
    return waits and state.round_num == round_num


def check_fits(state: RunState, event: Event, phase: Phase, round_num: int) -> None:
    """Refuse an event of another phase or step than the one that the run is in.

    Raises:
        RoundError: Phase or step differ.
    """
    if state.phase is not phase or state.round_num != round_num:
        raise RoundError(f"{event} does not fit a run that is {state.phase} in {_where(state)}")


def _where(state: RunState) -> str:
    return f"{'step' if state.mode == 'async' else 'round'} {state.round_num}"


def released(state: RunState) -> RunState:
    """Let what a trainer gave back, or left behind, be claimed again."""
    return dataclasses.replace(state, phase=Phase.READY) if state.phase is Phase.TRAINING else state


def stopped(state: RunState, event: Failed | Deserted) -> RunState:
    """End the run, for this reason unless it failed before; not where somebody has come back meanwhile.

    Raises:
        RoundError: The run is finished.
    """
    error = event.error if isinstance(event, Failed) else nobody_left(state)
    if not error:
        return state
    if state.phase is Phase.FINISHED:
        raise RoundError("the run is finished and cannot fail any more")
    return dataclasses.replace(state, phase=Phase.FAILED, error=state.error or error)


def check_member(state: RunState, client_id: str) -> None:
    """Refuse who has not joined, or takes part no more.

    Raises:
        RoundError: The device is no member.
    """
    if client_id in state.revoked:
        raise RoundError(f"{client_id} was revoked: it takes no part in this run any more")
    if client_id not in state.clients:
        raise RoundError(f"{client_id} has not joined this run")


def check_takes_part(state: RunState, client_id: str) -> None:
    """Refuse uploads of who is no member, or is quarantined and may ask again what to do.

    Raises:
        RoundClosedError: The device is quarantined, or the run stopped.
        RoundError: The device is no member.
    """
    check_member(state, client_id)
    if reason := dict(state.quarantined).get(client_id):
        raise RoundClosedError(f"{client_id} is quarantined: {reason}")
    if state.halt == STOPPED:
        raise RoundClosedError(halt_words(state))


def halt_words(state: RunState) -> str:
    """What devices are told of a run that a person has paused or stopped."""
    reason = f": {state.halt_reason}" if state.halt_reason else ""
    return f"whoever runs it has {state.halt} the run{reason}"


def held_task(state: RunState, client_id: str, round_num: int, retry_after_seconds: float) -> Task | None:
    """What a device does that takes no part; None for one that takes part."""
    answered = state.last_answer(client_id)
    if client_id in state.revoked:
        return Task("stop", round_num, answered, 0.0, f"{client_id} was revoked")
    check_member(state, client_id)
    if state.phase is Phase.FAILED:
        return Task("stop", round_num, answered, 0.0, state.error)
    if state.halt:
        action, wait = ("wait", retry_after_seconds) if state.halt == PAUSED else ("stop", 0.0)
        return Task(action, round_num, answered, wait, halt_words(state))
    reason = dict(state.quarantined).get(client_id)
    if reason is None:
        return None
    if state.phase is Phase.FINISHED:
        reason = f"the run ended while {client_id} was quarantined: {reason}"
        return Task("stop", round_num, answered, 0.0, reason)
    return Task("wait", round_num, answered, retry_after_seconds, f"{client_id} is quarantined: {reason}")
