"""Do what the person who runs a server wants: pause, stop and resume a run, and forget a device.

Works on the run's folder beside a running server, and in the server itself.
"""

from __future__ import annotations

import contextlib

from safetensors import SafetensorError, safe_open

from gkt_core.errors import InputError, RoundError
from gkt_core.wire.credentials import ClientChange
from server_app.logs.erasing import erase_name
from server_app.members.membership import REVOKE, applied, change_client, check_known
from server_app.overview.messages import RunChanged
from server_app.overview.seen import erase_seen
from server_app.overview.watcher import TOLD_NAME
from server_app.rounds.machine import rounds_of
from server_app.rounds.state import PAUSED, STOPPED, Continued, Event, Halted, Phase
from server_app.run_folder import RunContext
from server_app.store import drop_blobs

PAUSE, STOP, RESUME, FORGET = "pause", "stop", "resume", "forget"
RUN_ACTIONS = (PAUSE, STOP, RESUME)
_LONGEST_REASON = 300


def change_run(run: RunContext, action: str, reason: str = "") -> RunChanged:
    """Pause, stop or resume a run, and say what it is now.

    Args:
        run: The run.
        action: ``pause`` (devices and trainer wait), ``stop`` (devices end) or ``resume``.
        reason: Told to devices.

    Raises:
        InputError: It does not fit the run, or the reason is no line.
    """
    if len(reason) > _LONGEST_REASON or not reason.isprintable():
        raise InputError(f"the reason is {reason[:40]!r}, expected a line of {_LONGEST_REASON} characters")
    events: dict[str, Event] = {
        PAUSE: Halted(PAUSED, reason),
        STOP: Halted(STOPPED, reason),
        RESUME: Continued(),
    }
    state = applied(run.store, events[action])
    return RunChanged(run.store.run_id, str(state.phase), state.round_num, state.halt, state.halt_reason)


def is_trained_on(run: RunContext, client_id: str) -> bool:
    """Whether the trainer has samples of a device in its hands now."""
    state = run.store.state()
    return state.phase is Phase.TRAINING and client_id in rounds_of(state).parts(state)


def forget_client(run: RunContext, client_id: str) -> ClientChange:
    """Erase all that a device ever sent, and its name; who is a member is revoked first.

    Returns:
        What was erased, and what still holds something of it.

    Raises:
        InputError: There is no such device; or it is revoked now, and its samples are being trained on:
            forget it again when the round is over.
    """
    before = check_known(run.store, client_id)
    if client_id in (*before.clients, *before.revoked):
        change_client(run, client_id, REVOKE)
    else:
        run.store.credentials.end(client_id, revoked=True)
    rounds = run.store.past.rounds_of(client_id)
    try:
        blobs = run.store.erase(client_id)
    except RoundError as error:
        raise InputError(str(error)) from error
    names = sorted({*blobs, *run.blobs.names_of(client_id)})
    drop_blobs(run.blobs, names)
    _drop_epoch(run, client_id)
    num_lines = erase_name(run.folder, client_id)
    erase_seen(run.folder, client_id)
    (run.folder / TOLD_NAME).unlink(missing_ok=True)
    notes = [f"erased: its rows, {len(names)} files, its name in {num_lines} lines of logs"]
    if not run.store.compact():
        notes.append(
            "the database keeps deleted rows in its file until it writes it anew: PostgreSQL does so by "
            "itself (VACUUM FULL at once), for SQLite stop the server and give this command once more"
        )
    return ClientChange(client_id, "forgotten", [*notes, *_kept(rounds)])


def _drop_epoch(run: RunContext, client_id: str) -> None:
    """Drop the checkpoint of an epoch that the device had a part in: nobody goes on from it any more."""
    path = run.epoch_checkpoint_path
    with contextlib.suppress(FileNotFoundError, OSError, SafetensorError), safe_open(path, "numpy") as file:
        if f'"{client_id}"' in str(file.metadata()):
            path.unlink()


def _kept(rounds: list[int]) -> list[str]:
    """What still holds something of a device, and cannot be taken out of it."""
    if not rounds:
        return ["no network was trained on anything of it"]
    first, last = rounds[0], rounds[-1]
    where = f"round {first}" if first == last else f"rounds {first} to {last}"
    return [
        f"it took part in {where}: the server's network, its checkpoints, the trained model and the models "
        "of the other devices may hold what was learned from its samples, and nothing takes that out; a "
        "network without it is a new run without it",
        "metrics of those rounds are sums that count it, without its name",
        "what lies elsewhere is yours to erase: backups, logs that systemd, Docker or a proxy keep",
    ]
