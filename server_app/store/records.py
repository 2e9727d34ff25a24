"""Declare what a store is told and tells: devices, shards, rounds."""

from __future__ import annotations

from dataclasses import dataclass

from gkt_core.wire.shards import ShardKey
from server_app.rounds.state import RunState


@dataclass(frozen=True, slots=True)
class ClientRecord:
    """A device that joined."""

    client_id: str
    num_examples: int
    num_validation_examples: int
    engine: str


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """A stored shard.

    Attributes:
        key: Where it belongs.
        sha256: Of the body as it was sent.
        num_samples: Samples in it.
        upload_bytes: Size of that body.
        blob: Its name in the blob store.
    """

    key: ShardKey
    sha256: str
    num_samples: int
    upload_bytes: int
    blob: str


@dataclass(frozen=True, slots=True)
class UploadView:
    """What an upload is checked against.

    Attributes:
        state: Where the run stands.
        client: What the device said when it joined; None if it has not.
        known: The shard that is stored under this key; None if there is none.
    """

    state: RunState
    client: ClientRecord | None
    known: ShardRecord | None


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """Times of a round (seconds since the epoch) and what the trainer measured."""

    round_num: int
    opened_at: float
    collected_at: float
    trained_at: float
    metrics: dict[str, float]
