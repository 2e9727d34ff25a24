"""The messages of the wire, as standard dataclasses, and the version that both sides must share.

Bodies are JSON but for shards and artifacts; ``{run}`` and the like are parts of the path:

====  ==================================================================  ======================
verb  path                                                                body / answer
====  ==================================================================  ======================
GET   /v1/health                                                          :class:`Health`
GET   /v1/health/live                                                     :class:`Health`
GET   /v1/openapi.json                                                    this, for programs
GET   /docs                                                               this, for people
GET   /v1/authority                                                       who signed the certificate
GET   /v1/runs                                                            :class:`RunList`
GET   /v1/runs/{run}                                                      :class:`RunInfo`
GET   /v1/runs/{run}/status                                               :class:`RunStatus`
GET   /v1/runs/{run}/rounds                                               :class:`RoundPage`
GET   /v1/runs/{run}/artifacts/{file}                                     a file of the bundle
PUT   /v1/runs/{run}/clients/{client}                                     :class:`JoinRequest` / :class:`Task`
PUT   /v1/runs/{run}/clients/{client}/credential                          a secret's hash / Enrolled
GET   /v1/runs/{run}/clients/{client}/task                                :class:`Task`
GET   /v1/runs/{run}/rounds/{round}/clients/{client}/shards               :class:`MissingShards`
PUT   /v1/runs/{run}/rounds/{round}/clients/{client}/shards/{split}/{n}   a shard / :class:`ShardReceipt`
PUT   /v1/runs/{run}/rounds/{round}/clients/{client}/report               :class:`RoundReport` / :class:`Task`
GET   /v1/runs/{run}/rounds/{round}/clients/{client}/soft-labels          a soft-label shard
GET   /v1/runs/{run}/rounds/{round}/extractor                             a mean of extractors
GET   /v1/runs/{run}/model/template                                       the trained template
GET   /v1/runs/{run}/model/server                                         the server's weights
GET   /v1/runs/{run}/operator/clients                                     all devices
POST  /v1/runs/{run}/operator/enrolments                                  tokens for join links
POST  /v1/runs/{run}/operator/clients/{client}/{action}                   operators' changes
POST  /v1/infer                                                           features / :class:`Inference`
====  ==================================================================  ======================

All but the first five carry ``Authorization: Bearer <secret>`` (:mod:`gkt_core.wire.credentials`); shards
``X-Content-SHA256``, the hash of the body as sent, and ``Content-Encoding: zstd`` where compressed, or
``gkt-levels`` if ``Accept-Encoding`` of the list of missing shards names it (RFC 7694). Equal PUTs may be
repeated. Files carry the same header, of the whole file, and ``ETag``: ``Range`` and ``If-Range`` ask for the
rest. Errors are :class:`ErrorBody`; answers of 429 and 503 say in ``Retry-After`` how many seconds to wait.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Any

from gkt_core.errors import MessageError

# Part of the protocol: whoever imports a message reads and writes it with these.
from gkt_core.wire.message_json import LONGEST_TEXT as LONGEST_TEXT
from gkt_core.wire.message_json import MAX_MESSAGE_BYTES as MAX_MESSAGE_BYTES
from gkt_core.wire.message_json import PROTOCOL_VERSION as PROTOCOL_VERSION
from gkt_core.wire.message_json import Message as Message
from gkt_core.wire.message_json import Range, Shown, other_version, since
from gkt_core.wire.message_json import from_dict as from_dict
from gkt_core.wire.message_json import from_json as from_json
from gkt_core.wire.message_json import to_json as to_json

SHA256_HEADER = "X-Content-SHA256"
ZSTD, LEVELS = "zstd", "gkt-levels"
MAX_MISSING_SHARDS, MOST_ROUNDS = 10_000, 1_000_000
SHOWN_ROUNDS, MOST_PAGE_ROUNDS = 20, 500  # Of a status, and of a page of them at most.
LONGEST_WAIT_SECONDS = 3600.0  # What a server may ask a device to wait.

Round = Annotated[int, Range(0, MOST_ROUNDS)]
ShardIndex = Annotated[int, Range(0, 2**31)]
Count = Annotated[int, Range(0, 2**53)]

CLIENT_ID_PATTERN = "[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
_CLIENT_ID = re.compile(CLIENT_ID_PATTERN)


@dataclass(frozen=True, slots=True)
class ErrorBody(Message):
    """What every answer of 400 and above carries."""

    error: str
    message: str


@dataclass(frozen=True, slots=True)
class Health(Message):
    """The server answers, and the run can go on if that was asked; ``status`` is ``ok``."""

    status: str


@dataclass(frozen=True, slots=True)
class RunList(Message):
    """The runs of a server; one, for now."""

    protocol_version: int
    run_ids: list[str]


@dataclass(frozen=True, slots=True)
class RunInfo(Message):
    """What a device must know before it joins; ``gkt_version`` is the server's, empty from 1.0."""

    protocol_version: int
    run_id: str
    config: dict[str, Any]
    manifest: dict[str, Any]
    gkt_version: str = field(default="", metadata=since(1))


@dataclass(frozen=True, slots=True)
class JoinRequest(Message):
    """A device introduces itself; repeating it is harmless.

    Attributes:
        class_names: Of its data, in their order; empty from devices that do not say.
        client_key: A secret of the device: a name that another one has is refused. Empty where it has none.
        samples_sha256: A hash of the ids of its samples, of both parts. If it is another one than before,
            what the server holds of a part that is not closed was made of others, and is forgotten.
        require_tap: As in :class:`gkt_core.bundle.tap.TapRequirement`; empty for any. max_bits: 0 for any.
    """

    protocol_version: int
    num_examples: int
    num_validation_examples: int
    num_classes: int
    engine: str
    class_names: list[str] = field(default_factory=list)
    client_key: str = ""
    samples_sha256: str = ""
    require_tap: str = ""
    max_bits: int = 0


@dataclass(frozen=True, slots=True)
class Task(Message):
    """What a device does next.

    Attributes:
        action: ``wait``, ``train`` (round ``round_num``), ``finish`` (take the model) or ``stop`` (the run
            failed; ``reason`` says why).
        round_num: The round, from 1; 0 while the run has not begun.
        soft_labels_round: The last round in which the server trained on this device's features; 0 for none.
        retry_after_seconds: When to ask again, for ``wait``.
        reason: For a person.
        learning_rate_scale: What the device's learning rate is multiplied with in this round.
        upload_round: Where not every round has an upload: of the one that the server holds; 0 for none.
        view_round: In such a run, the round of the upload that those soft labels answer: its view is the one
            that they belong to, and the extractor that made it is the one of the model.
    """

    action: str
    round_num: Round
    soft_labels_round: Round
    retry_after_seconds: Annotated[float, Range(0, LONGEST_WAIT_SECONDS)]
    reason: Annotated[str, Shown]
    learning_rate_scale: Annotated[float, Range(0, 1000)] = 1.0
    upload_round: Round = 0
    view_round: Round = 0


@dataclass(frozen=True, slots=True)
class MissingShards(Message):
    """Shards of a device's part of a round that the server does not hold, by index.

    Attributes:
        train: The first missing ones of training samples, at most :data:`MAX_MISSING_SHARDS`, ascending.
        validation: The same of validation samples.
    """

    train: list[ShardIndex]
    validation: list[ShardIndex]


@dataclass(frozen=True, slots=True)
class ShardReceipt(Message):
    """The server holds this shard."""

    num_samples: Count
    upload_bytes: Count
    already_stored: bool


@dataclass(frozen=True, slots=True)
class RoundReport(Message):
    """A device closes its part of a round: how many shards it sent, and how training went.

    ``feature_clip``, ``feature_noise`` and ``label_epsilon`` say what it did to features and labels, as
    :class:`gkt_core.wire.feature_noise.FeatureNoise` has them; 0 for nothing. ``upload_round`` is the round
    whose upload is to be trained on, which the shards are counted of; 0 for this one.
    """

    num_train_shards: int
    num_validation_shards: int
    num_examples: int
    loss: float
    accuracy: float
    train_seconds: float
    extract_seconds: float
    images_per_second: float
    feature_clip: float = 0.0
    feature_noise: float = 0.0
    upload_round: int = 0
    label_epsilon: float = 0.0


@dataclass(frozen=True, slots=True)
class Inference(Message):
    """What the server's half of a deployed model makes of features (:mod:`gkt_core.wire.online_features`).

    Attributes:
        labels: The likeliest class of each sample.
        logits: Of each sample and class.
        probabilities: Their softmax.
    """

    labels: list[int]
    logits: list[list[float]]
    probabilities: list[list[float]]


@dataclass(frozen=True, slots=True)
class ClientStatus(Message):
    """One device, as the server sees it; clip and noise are those of its last report."""

    client_id: str
    num_examples: int
    num_validation_examples: int
    engine: str
    last_reported_round: int
    feature_clip: float = 0.0
    feature_noise: float = 0.0
    label_epsilon: float = 0.0


@dataclass(frozen=True, slots=True)
class RoundMetrics(Message):
    """One finished round.

    Attributes:
        round_num: From 1.
        seconds: Wall time from the round's opening to its soft labels.
        edge_seconds: Until the last device had reported.
        server_seconds: Training and evaluation on the server.
        train_loss: Mean server loss of the last epoch.
        train_accuracy: Server accuracy on training batches of the last epoch, 0..1.
        validation_loss: Cross entropy of the server network on the devices' validation shards.
        validation_accuracy: Accuracy of extractor + server network on them, 0..1.
        edge_loss: Mean of the devices' training losses, weighted by examples.
        edge_accuracy: Mean of the devices' training accuracies, 0..1.
        num_examples: Training samples of the round.
        server_samples_per_second: Training throughput of the server.
        edge_images_per_second: Sum over the devices.
        upload_bytes: Bodies that devices sent for this round.
        download_bytes: Bodies of the soft labels that devices took in this round, to train with.
    """

    round_num: int
    seconds: float
    edge_seconds: float
    server_seconds: float
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    edge_loss: float
    edge_accuracy: float
    num_examples: int
    server_samples_per_second: float
    edge_images_per_second: float
    upload_bytes: int
    download_bytes: int


@dataclass(frozen=True, slots=True)
class RoundPage(Message):
    """Finished rounds after one, oldest first.

    ``next_after`` is what the next page is after; 0 where there are no more for now.
    """

    rounds: list[RoundMetrics]
    next_after: int


@dataclass(frozen=True, slots=True)
class TrainerProgress(Message):
    """How far the trainer is in the current round."""

    round_num: int
    epoch: int
    epochs: int
    samples_per_second: float
    loss: float


@dataclass(frozen=True, slots=True)
class HistoryNote(Message):
    """Something that happened to a run beside its rounds.

    Attributes:
        at: When, in seconds since the epoch.
        round_num: The round that the run was in.
        kind: ``changed`` (a setting, from here on), ``failed``, ``resumed``, ``trainer`` (it died, or hung),
            ``damaged`` (something that was stored).
        text: For a person.
    """

    at: float
    round_num: int
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class RunStatus(Message):
    """A run at a glance, for people and for programs that watch.

    Attributes:
        phase: ``joining``, ``collecting``, ``ready``, ``training``, ``finished`` or ``failed``.
        traffic: Bytes of request and response bodies by kind: ``upload/shards``, ``upload/reports``,
            ``download/bundle``, ``download/soft_labels``, ``download/model``.
        selected: Devices that were drawn for the current round.
        revoked: Devices that may no longer take part.
        overdue: Whether the round's deadline has passed, and fewer than the least number of devices reported.
        trainer_idle_seconds: Since the trainer process was last heard of.
        mode: ``sync`` or ``async``; without rounds, ``round_num`` counts as many uploads as there are devices
            as one, and ``finished_rounds`` are the steps of the server.
        finished_rounds: The last :data:`SHOWN_ROUNDS` of them, oldest first; :class:`RoundPage` has all.
        server_steps: Steps that the server has finished, one a round in mode ``sync``.
        staleness: Rounds that each device is ahead of the slowest, in mode ``async``.
        quarantined: Devices whose uploads are not trained on, each with the reason.
        history: What happened beside the rounds, oldest first; the latest of each kind.
    """

    run_id: str
    phase: str
    round_num: int
    rounds: int
    num_clients: int
    clients: list[ClientStatus]
    reported: list[str]
    traffic: dict[str, int]
    trainer_idle_seconds: float
    trainer: TrainerProgress | None = None
    finished_rounds: list[RoundMetrics] = field(default_factory=list)
    error: str = ""
    selected: list[str] = field(default_factory=list)
    revoked: list[str] = field(default_factory=list)
    overdue: bool = False
    quarantined: dict[str, str] = field(default_factory=dict)
    mode: str = "sync"
    server_steps: int = 0
    staleness: dict[str, int] = field(default_factory=dict)
    history: list[HistoryNote] = field(default_factory=list)


def check_protocol_version(theirs: int) -> None:
    """Refuse a peer of another version.

    Raises:
        ProtocolVersionError: Names both versions and the remedy.
    """
    if theirs != PROTOCOL_VERSION:
        raise other_version(theirs)


def check_run_id(run_id: str) -> str:
    """Refuse the id of a run that could be no part of a path.

    Raises:
        MessageError: It is empty, too long, or holds other characters.
    """
    if not is_client_id(run_id):
        raise MessageError(
            f"the server's run is {run_id[:70]!r}, expected 1 to 64 letters, digits, '_', '.', '-'"
        )
    return run_id


def is_client_id(client_id: str) -> bool:
    """Say whether a device may have this id: it could be a file name everywhere."""
    return _CLIENT_ID.fullmatch(client_id) is not None


def as_client_id(text: str) -> str:
    """Turn the name of a file into one that a device may have, or into the beginning of one."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", text).lstrip("-._") or "device"


def check_client_id(client_id: str) -> str:
    """Refuse client ids that could not be a file name everywhere.

    Raises:
        MessageError: The id is empty, too long, or holds other characters.
    """
    if not is_client_id(client_id):
        raise MessageError(
            f"client id {client_id[:70]!r}: expected 1 to 64 letters, digits, '_', '.' or '-', "
            "beginning with a letter or digit"
        )
    return client_id
