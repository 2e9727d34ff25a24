"""Judge a run: what is wrong, how bad it is, and what a person does about it; pure functions of a document.

The terminal prints them, the exit code of ``gkt status`` follows from them, and pages and metrics show them:
there is no second place that decides whether a run is well.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from gkt_core.errors import AttentionError, GKTError, ResourceError, RunFailedError, ServerUnavailableError
from server_app.members.copies import copied_words
from server_app.overview.amounts import as_bytes, as_duration, listed
from server_app.overview.messages import ERROR, INFO, WARNING, DeviceLine, Finding, Overview
from server_app.store.joining import same_samples

# A device is slow once it was awaited for so long, and for so many times as long as rounds usually wait.
# What was ended by itself is shown for so long; the log keeps it.
COPIED_SECONDS = 3600.0
SLOW_SECONDS, _SLOW_FACTOR = 600.0, 3.0
# As much room again as stays reserved: uploads are not refused yet.
_NEARLY_FULL_FACTOR = 3
_LEAST_ROOM_BYTES = 500_000_000
# A sign of life is a file that is looked at; its own clock may be a little off.
_GRACE_SECONDS = 5.0
_SEVERITIES = (ERROR, WARNING, INFO)
# What a command that finds this ends with; 0 for what is only said.
_ENDS: dict[str, type[GKTError]] = {
    "failed": RunFailedError,
    "trainer-hangs": RunFailedError,
    "trainer-died": RunFailedError,
    "storage": ServerUnavailableError,
    "disk-full": ResourceError,
    "disk-nearly-full": ResourceError,
}


def judge(document: Overview) -> list[Finding]:
    """Say what is wrong with a run, the most urgent first."""
    made = [
        finding
        for look in (_of_the_run, _of_the_server, _of_the_disk, _of_who_comes, _of_devices)
        for finding in look(document)
    ]
    return sorted(made, key=lambda finding: _SEVERITIES.index(finding.severity))


def exit_code(findings: list[Finding]) -> int:
    """What a command that shows these findings ends with: the worst one's; 0 where nobody need look."""
    for finding in findings:
        if finding.severity != INFO:
            return _ENDS.get(finding.kind, AttentionError).exit_code
    return 0


def next_step(document: Overview) -> str:
    """The one thing that helps now, as a line."""
    is_finished = document.phase == "finished"
    for finding in document.findings:
        # What is only said helps nobody any more once the run is over.
        if finding.remedy and not (is_finished and finding.severity == INFO):
            return f"{finding.text}: {finding.remedy}"
    if is_finished:
        return "nothing is left to do: each device has its model.onnx, and gkt deploy makes it ready to ship"
    return f"nothing to do: {waiting_for(document)}"


def waiting_for(document: Overview) -> str:
    """What the run waits for, and for whom, as part of a sentence."""
    if document.halt:
        return f"the run is {document.halt}"
    match document.phase:
        case "joining":
            missing = document.num_clients - document.num_joined
            return f"it waits for {missing} of {document.num_clients} devices to join"
        case "collecting" if document.waits_for:
            return f"round {document.round_num} waits for {_named(document, document.waits_for)}"
        case "collecting":
            return f"round {document.round_num} waits for devices"
        case "ready":
            return f"round {document.round_num} waits for the trainer"
        case "training" if (now := document.trainer.progress) is not None:
            done = f"epoch {now.epoch} of {now.epochs}, {now.samples_per_second:.0f} samples/s"
            return f"the trainer trains on round {document.round_num}, {done}"
        case "training":
            return f"the trainer trains on round {document.round_num}"
        case "failed":
            return "the run has failed"
    return "the run is finished"


def _named(document: Overview, names: list[str]) -> str:
    seen = {device.client_id: device.seen_seconds for device in document.devices}

    def one(name: str) -> str:
        seconds = seen.get(name, -1.0)
        return f"{name} ({f'last seen {as_duration(seconds)} ago' if seconds >= 0 else 'not seen yet'})"

    # The one that was away for longest is the one to look at.
    ordered = sorted(names, key=lambda name: (-seen.get(name, -1.0), name))
    return listed([one(name) for name in ordered], 3)


def _of_the_run(document: Overview) -> Iterator[Finding]:
    here = f"--data-dir {document.data_dir}"
    if document.phase == "failed":
        text = f"the run has failed: {document.error}"
        yield Finding("failed", ERROR, text, f"once the cause is gone, gkt serve {here} --resume-failed")
    if document.halt:
        why = f" ({document.halt_reason})" if document.halt_reason else ""
        text = f"a person has {document.halt} the run{why}"
        yield Finding(document.halt, INFO, text, f"gkt runs resume {here} lets it go on")
    if document.storage:
        yield Finding("storage", ERROR, document.storage, "see docs/running.md, When something goes wrong")


def _of_the_server(document: Overview) -> Iterator[Finding]:
    if document.phase in ("finished", "failed"):
        return
    if not document.is_served:
        text = "no server of this run is up: no device can go on"
        yield Finding("not-served", WARNING, text, f"gkt serve --data-dir {document.data_dir}")
        return
    trainer, log = document.trainer, f"{document.data_dir}/trainer.log"
    is_silent = 0 < trainer.allowed_seconds + _GRACE_SECONDS < trainer.silent_seconds
    if "died" in trainer.trouble:
        text = "the trainer died, and the server starts it again"
        yield Finding("trainer-died", ERROR, text, f"look at the end of {log}")
    elif trainer.trouble or (trainer.allowed_seconds and is_silent):
        text = (
            f"the trainer hangs: silent for {as_duration(trainer.silent_seconds)} while {trainer.what}, "
            f"{as_duration(trainer.allowed_seconds)} are allowed"
        )
        yield Finding(
            "trainer-hangs",
            ERROR,
            text,
            f"the server ends it and starts another; if that does not help, look at {log}",
        )


def _of_the_disk(document: Overview) -> Iterator[Finding]:
    disk = document.disk
    free, reserve = as_bytes(disk.free_bytes), as_bytes(disk.reserve_bytes)
    remedy = f"make room on the disk of {disk.folder}"
    if disk.free_bytes < disk.reserve_bytes:
        text = f"the disk is full: {free} are free, {reserve} stay reserved, and uploads wait"
        yield Finding("disk-full", ERROR, text, f"{remedy}, or serve with a smaller --reserve-disk")
    elif disk.free_bytes < max(_NEARLY_FULL_FACTOR * disk.reserve_bytes, _LEAST_ROOM_BYTES):
        text = f"the disk is nearly full: {free} are free, and uploads wait below {reserve}"
        yield Finding("disk-nearly-full", WARNING, text, remedy)


def _of_who_comes(document: Overview) -> Iterator[Finding]:
    if document.phase != "joining" or document.halt or not document.is_served:
        return
    missing = document.num_clients - document.num_joined
    text = f"{missing} of {document.num_clients} devices have never joined"
    is_long = document.waits_seconds >= SLOW_SECONDS
    if is_long:
        text += f", and none came for {as_duration(document.waits_seconds)}"
    link = f"give them the link in {document.link}" if document.link else "give them a link (gkt enroll)"
    enough = f"gkt serve --data-dir {document.data_dir} --round-deadline 600 --min-clients"
    begin = f", or begin without them: {enough} {document.num_joined}" if document.num_joined else ""
    yield Finding("nobody-comes", WARNING if is_long else INFO, text, link + begin)


def _of_devices(document: Overview) -> Iterator[Finding]:
    here = f"--data-dir {document.data_dir}"
    quarantined = [device for device in document.devices if device.state == "quarantined"]
    for device in quarantined:
        text = f"{device.client_id} is quarantined: {device.reason}"
        remedy = (
            f"look at what it sends, then gkt clients release {device.client_id} {here} (--trust: without "
            f"checks), or gkt clients revoke {device.client_id}"
        )
        yield Finding("quarantined", WARNING, text, remedy, device.client_id)
    yield from _of_copies(document)
    for device in document.devices:
        if device.refused and device.state not in ("quarantined", "revoked"):
            text = f"the last request of {device.client_id} was refused: {device.refused}"
            remedy = f"look at what {device.client_id} printed; once that is mended, start it again"
            yield Finding("refused", WARNING, text, remedy, device.client_id)
    if document.phase == "collecting" and document.is_served and not document.halt:
        yield from _of_late_devices(document)


def _of_copies(document: Overview) -> Iterator[Finding]:
    for device in document.devices:
        if 0 <= device.copied_seconds < COPIED_SECONDS and device.state != "revoked":
            text = f"{copied_words(device.client_id)}; the one that began later was ended"
            remedy = "give it another --state-dir and a link of its own (gkt enroll)"
            yield Finding("copied", WARNING, text, remedy, device.client_id)
        # Each pair once.
        if device.client_id < device.twin:
            text = same_samples(device.client_id, device.twin)
            remedy = "if it is one file, leave one of the two out: its images count twice"
            yield Finding("same-samples", INFO, text, remedy, device.client_id)


def _of_late_devices(document: Overview) -> Iterator[Finding]:
    here = f"--data-dir {document.data_dir}"
    if document.overdue and document.waits_for:
        text = (
            f"the deadline of round {document.round_num} has passed, and fewer than {document.min_clients} "
            "devices have reported"
        )
        remedy = f"start {_named(document, document.waits_for)} again, or serve with a smaller --min-clients"
        yield Finding("overdue", WARNING, text, remedy)
        return
    usual = [metrics.edge_seconds for metrics in document.finished_rounds]
    patience = max(SLOW_SECONDS, _SLOW_FACTOR * median(usual) if usual else 0.0)
    if document.waits_seconds < patience:
        return
    awaited = set(document.waits_for)
    away = [each for each in document.devices if each.client_id in awaited and _is_away(each)]
    if not away:
        return
    names = [device.client_id for device in away]
    text = (
        f"round {document.round_num} has waited for {as_duration(document.waits_seconds)}, now for "
        f"{_named(document, names)}"
    )
    remedy = f"start {listed(names, 3)} again with the same command"
    if not document.deadline_seconds:
        remedy += f", or let rounds go on without who is late: gkt serve {here} --round-deadline 3600"
    yield Finding("late", WARNING, text, remedy, names[0] if len(names) == 1 else "")


def _is_away(device: DeviceLine) -> bool:
    """Whether an awaited device was not heard of for long; one that trains asks nothing for a while."""
    return device.seen_seconds < 0 or device.seen_seconds >= SLOW_SECONDS
