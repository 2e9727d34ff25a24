"""Go back with a server that came back from a backup: to the round that it is in, instead of stopping."""

from __future__ import annotations

from collections.abc import Callable

from edge_runtime.state.state_dir import DeviceState, StateDir
from gkt_core.errors import ProtocolError
from gkt_core.wire.protocol import Task

_OTHER_WEIGHTS = (
    "the weights of now: those of then are no longer kept, and the run ends with other numbers than it would "
    "have"
)


def is_ahead(state: DeviceState, task: Task, mode: str) -> bool:
    """Say whether the server stands where this device was before: it has come back from a backup.

    Args:
        state: Where this device stands.
        task: What the server wants of it.
        mode: Of the run; without rounds a run may end before a device's last one was trained on.
    """
    if task.action == "train":
        return task.round_num < state.trained_round
    is_over = task.action == "finish" and not task.view_round
    return is_over and task.round_num + (mode == "async") < state.trained_round


def go_back(folder: StateDir, state: DeviceState, task: Task, note: Callable[[str], None]) -> DeviceState:
    """Go back to before the task's round, which is then done once more.

    Args:
        folder: Of the device.
        state: Where it stands.
        task: Of an earlier round, or the end of a run that had fewer rounds.
        note: Told what is done.

    Returns:
        Where it stands now; weights are to be read anew.
    """
    last_round = task.round_num - (task.action == "train")
    back, is_exact = folder.back_to(state, last_round, task.soft_labels_round)
    how = "the weights of then" if is_exact else _OTHER_WEIGHTS
    note(
        f"{state.client_id} was in round {state.trained_round}, and its server has come back to round "
        f"{task.round_num}, from a backup: going back after round {back.trained_round}, with {how}"
    )
    return back


def check_place(state: DeviceState, task: Task) -> None:
    """Refuse a task that does not follow from where this device stands.

    A device takes part in every round, or where it was drawn; its weights never lag behind its answers.

    Raises:
        ProtocolError: It was given for another folder.
    """
    if not task.soft_labels_round <= state.trained_round <= task.round_num:
        raise other_folder(task.round_num, state)


def other_folder(round_num: int, state: DeviceState) -> ProtocolError:
    """Say that a state folder is not the one that belongs to what a server says."""
    return ProtocolError(
        f"the server is in round {round_num}, this device's state folder after round {state.trained_round}: "
        "the folder is not this run's"
    )
