"""What the person who runs a server sees of a run: everything at a glance, what is wrong, what to do next.

====  ==================================================================  ======================
verb  path                                                                body / answer
====  ==================================================================  ======================
GET   /v1/runs/{run}/operator/overview                                    :class:`Overview`
POST  /v1/runs/{run}/operator/run/{change}                                RunChange / :class:`RunChanged`
GET   /metrics                                                            numbers for Prometheus
GET   /healthz                                                            as /v1/health/live
GET   /readyz                                                             as /v1/health
====  ==================================================================  ======================

All but the last two are an operator's. What else goes over the wire is in :mod:`gkt_core.wire.protocol`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gkt_core.wire.message_json import since
from gkt_core.wire.protocol import HistoryNote, Message, RoundMetrics, TrainerProgress

# Of a finding, from what stops a run to what is only said.
ERROR, WARNING, INFO = "error", "warning", "info"


@dataclass(frozen=True, slots=True)
class DeviceLine(Message):
    """One device, for whoever runs the server.

    Attributes:
        client_id: Its name.
        state: As of :class:`gkt_core.wire.credentials.ClientRow`.
        reason: Why it is quarantined; empty where it is not.
        is_trusted: Whether its uploads are not checked any more.
        is_awaited: Whether the run waits for its part of a round.
        num_examples: Training samples; 0 before it has joined.
        num_validation_examples: Validation samples.
        engine: What it trains with.
        last_round: The last round that it closed; 0 for none.
        last_answer: The last round with soft labels for it; 0 for none.
        accuracy: Of its network on its own images, in its last report, 0..1; -1 without one.
        images_per_second: It trained with, in that report.
        seen_seconds: Since its last request; -1 where nobody has seen it.
        upload_bytes: Bodies that it has sent.
        download_bytes: Bodies that it has taken.
        refused: Why its last request was refused; empty where it was not.
        copied_seconds: Since two processes showed its secret by turns; -1 for never.
        twin: Another device that has said the very same samples; empty for none.
    """

    client_id: str
    state: str
    reason: str = ""
    is_trusted: bool = False
    is_awaited: bool = False
    num_examples: int = 0
    num_validation_examples: int = 0
    engine: str = ""
    last_round: int = 0
    last_answer: int = 0
    accuracy: float = -1.0
    images_per_second: float = 0.0
    seen_seconds: float = -1.0
    upload_bytes: int = 0
    download_bytes: int = 0
    refused: str = ""
    copied_seconds: float = field(default=-1.0, metadata=since(1))
    twin: str = field(default="", metadata=since(1))


@dataclass(frozen=True, slots=True)
class TrainerLine(Message):
    """The trainer process.

    Attributes:
        what: What it does, in its own words; empty where it gave no sign yet.
        silent_seconds: Since its last sign of life; -1 where there was none.
        allowed_seconds: How long it may be silent in what it does.
        trouble: What whoever watches it says is wrong; empty where nothing is.
        progress: How far it is in the current round.
    """

    what: str = ""
    silent_seconds: float = -1.0
    allowed_seconds: float = 0.0
    trouble: str = ""
    progress: TrainerProgress | None = None


@dataclass(frozen=True, slots=True)
class DiskLine(Message):
    """The disk that the run's folder is on; uploads leave ``reserve_bytes`` to everything else."""

    folder: str
    free_bytes: int
    total_bytes: int
    reserve_bytes: int


@dataclass(frozen=True, slots=True)
class Finding(Message):
    """Something that whoever runs the server should know.

    Attributes:
        kind: A stable name for programs, such as ``trainer-hangs``.
        severity: ``error`` (the run cannot go on), ``warning`` (somebody should look) or ``info``.
        text: What is so, as a sentence.
        remedy: What to do about it; empty where nothing is to be done.
        client_id: The device that it is about; empty for none.
    """

    kind: str
    severity: str
    text: str
    remedy: str = ""
    client_id: str = ""


@dataclass(frozen=True, slots=True)
class Overview(Message):
    """A run, its devices and its server, at one moment.

    Attributes:
        at: Which moment, in seconds since the epoch.
        run_id: Which run.
        phase: As of :class:`gkt_core.wire.protocol.RunStatus`.
        round_num: The current round; 0 while devices join.
        rounds: Rounds in all.
        mode: ``sync`` or ``async``.
        halt: ``paused`` or ``stopped`` by a person; empty for neither.
        halt_reason: Why.
        error: Why the run failed.
        num_clients: Devices that the run is for.
        num_joined: Devices that take part.
        min_clients: Devices that are enough after a deadline.
        deadline_seconds: After which a round goes on without late devices; 0 for never.
        overdue: Whether it has passed and too few devices have reported.
        waits_for: Devices whose part of the round is awaited.
        waits_seconds: How long it has waited for devices.
        seconds_left: Until the last round is done, by how long the last ones took; -1 where nobody can say.
        is_served: Whether a server of this run is up.
        url: Where; empty where none is.
        link: File that holds the link for devices, on the server's machine; empty where there is none.
        data_dir: Folder of the run, on the server's machine.
        storage: What is wrong with database, blobs or the trained model; empty where nothing is.
        devices: By name.
        finished_rounds: The last ones, oldest first.
        traffic: Bytes by kind.
        history: What happened beside the rounds.
        findings: What is wrong, and what to do, the most urgent first.
    """

    at: float
    run_id: str
    phase: str
    round_num: int
    rounds: int
    mode: str
    num_clients: int
    num_joined: int
    min_clients: int
    trainer: TrainerLine
    disk: DiskLine
    halt: str = ""
    halt_reason: str = ""
    error: str = ""
    deadline_seconds: float = 0.0
    overdue: bool = False
    waits_for: list[str] = field(default_factory=list)
    waits_seconds: float = 0.0
    seconds_left: float = -1.0
    is_served: bool = True
    url: str = ""
    link: str = ""
    data_dir: str = ""
    storage: str = ""
    devices: list[DeviceLine] = field(default_factory=list)
    finished_rounds: list[RoundMetrics] = field(default_factory=list)
    traffic: dict[str, int] = field(default_factory=dict)
    history: list[HistoryNote] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class RunChange(Message):
    """An operator pauses, stops or resumes a run; ``reason`` is told to devices."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class RunChanged(Message):
    """What a run is after an operator has changed it; ``halt`` as in :class:`Overview`."""

    run_id: str
    phase: str
    round_num: int
    halt: str
    halt_reason: str
