"""Declare what web processes and the trainer see of a store: two interfaces and their records."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gkt_core.wire.protocol import RoundReport, TrainerProgress
from gkt_core.wire.shards import ShardKey
from server_app.rounds.state import Event, RunState


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


class RunStore(Protocol):
    """State of one run, shared by processes. Every method is one transaction."""

    run_id: str

    def config(self) -> dict[str, Any]:
        """The run's hyper-parameters."""
        ...

    def state(self) -> RunState:
        """Where the run stands."""
        ...

    def apply(self, event: Event, lease_owner: str | None = None) -> RunState:
        """Advance the state machine by one event and return the new state.

        Raises:
            RoundError: The event is refused, or somebody else than ``lease_owner`` holds the lease.
        """
        ...

    def join(self, client: ClientRecord) -> RunState:
        """Take a device in and remember what it said, or neither; repeating it replaces what it said."""
        ...

    def clients(self) -> dict[str, ClientRecord]:
        """All devices by id."""
        ...

    def upload_view(self, key: ShardKey) -> UploadView:
        """What an upload is checked against, as it is at one moment."""
        ...

    def add_shard(self, shard: ShardRecord, traffic: str | None = None) -> None:
        """Remember a shard, and count its bytes as this kind of traffic; repeating it replaces it."""
        ...

    def forget_shard(self, key: ShardKey) -> None:
        """Forget a shard whose blob is lost, so that it is asked for again."""
        ...

    def shards(self, round_num: int, client_id: str | None = None) -> list[ShardRecord]:
        """Shards of a round, of one device or of all, in canonical order."""
        ...

    def close_part(self, client_id: str, round_num: int, report: RoundReport) -> RunState:
        """Close a device's part of a round and remember how it went, or neither; RoundError if refused."""
        ...

    def reports(self, round_num: int) -> dict[str, RoundReport]:
        """Reports of a round by device."""
        ...

    def add_round_metrics(self, round_num: int, metrics: dict[str, float]) -> None:
        """Remember what the trainer measured in a round."""
        ...

    def rounds(self) -> list[RoundRecord]:
        """All rounds that were opened, oldest first."""
        ...

    def count_traffic(self, kind: str, round_num: int, num_bytes: int) -> None:
        """Add to the bytes of one kind (``upload/shards`` and so on) in one round."""
        ...

    def traffic(self) -> dict[tuple[str, int], int]:
        """Bytes by kind and round."""
        ...

    def take_lease(self, owner: str, seconds: float) -> bool:
        """Take or renew the right to train, if nobody else has it, and say whether it is the owner's now."""
        ...

    def release_lease(self, owner: str) -> None:
        """Give the right to train back, if it is the owner's."""
        ...

    def report_progress(self, progress: TrainerProgress | None) -> None:
        """Say how far the trainer is; also its sign of life."""
        ...

    def progress(self) -> tuple[TrainerProgress | None, float]:
        """How far the trainer is, and when it last said so (seconds since the epoch)."""
        ...

    def close(self) -> None:
        """Give connections back."""
        ...


class BlobStore(Protocol):
    """Shards, soft labels and models by name; names have ``/`` between parts."""

    def put(self, name: str, data: bytes) -> None:
        """Store whole or not at all; repeating it replaces."""
        ...

    def incoming(self) -> AbstractContextManager[Path]:
        """A path for a new file that :meth:`put_file` may take; what is left there is removed."""
        ...

    def drop_incoming(self) -> None:
        """Remove what a killed server left of files that it received."""
        ...

    def put_file(self, name: str, path: Path) -> None:
        """Take over a file of :meth:`incoming`, whole or not at all; a crash of the machine may lose it."""
        ...

    def make_durable(self, names: Iterable[str]) -> list[str]:
        """Let blobs of :meth:`put_file` survive a crash of the machine; return those that one has taken."""
        ...

    def local_path(self, name: str) -> Path:
        """A file with this content, for reading and memory-mapping.

        Raises:
            FileNotFoundError: There is no such blob.
        """
        ...

    def drop_copy(self, name: str) -> None:
        """Remove what :meth:`local_path` keeps here of a blob that is stored elsewhere."""
        ...

    def delete(self, name: str) -> None:
        """Forget one blob; there may be none."""
        ...

    def delete_below(self, prefix: str) -> None:
        """Forget all blobs whose names begin with ``prefix/``."""
        ...
