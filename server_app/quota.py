"""Bound what devices may store: by the samples that each announced, and by the room that the disk keeps."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

from gkt_core.errors import MessageError, NoRoomError, ShardError
from gkt_core.files import existing_above
from gkt_core.wire.shards import ShardKey
from server_app.store import ClientRecord

_logger = logging.getLogger("gkt.server")

NO_ROOM = "the server's disk has no room for uploads"


@dataclass(frozen=True, slots=True)
class Limits:
    """What whoever runs the server allows.

    Attributes:
        max_samples: Training and validation samples together that a device may announce.
        reserve_bytes: Room on each disk that uploads leave to everything else; 0 for none.
    """

    max_samples: int = 1_000_000
    reserve_bytes: int = 0


@dataclass(slots=True)
class _Kept:
    """Shards of a device's last round, by split and index, and their bytes in all."""

    round_num: int
    num_bytes: int = 0
    sizes: dict[tuple[str, int], int] = field(default_factory=dict)


@dataclass(slots=True)
class Quota:
    """What may be stored in one run.

    Attributes:
        folders: Where it is stored; those on disks of their own count by themselves.
        shard_samples: Samples in a full shard.
        limits: Of the server.
        num_devices: Of the run, who share the disk.
    """

    folders: tuple[Path, ...]
    shard_samples: int
    limits: Limits = field(default_factory=Limits)
    num_devices: int = 1
    _is_short: bool = field(default=False, init=False)
    _kept: dict[str, _Kept] = field(default_factory=dict, init=False)
    _told: set[str] = field(default_factory=set, init=False)

    def check_announced(self, client_id: str, num_train: int, num_validation: int) -> None:
        """Refuse a device that says that it has more samples than one may have.

        Raises:
            MessageError: Names both numbers.
        """
        if num_train + num_validation > self.limits.max_samples:
            raise MessageError(
                f"{client_id} announces {num_train} training and {num_validation} validation samples, "
                f"expected {self.limits.max_samples} at most together: whoever runs the server may allow "
                "more with gkt serve --max-samples"
            )

    def num_shards(self, client: ClientRecord | None, split: str) -> int:
        """How many shards of a split a device may store in a round."""
        return -(-_announced(client, split) // self.shard_samples)

    def check_index(self, key: ShardKey, client: ClientRecord | None) -> None:
        """Refuse a shard beyond those that the device's samples make.

        Raises:
            ShardError: Names what was announced.
        """
        most = self.num_shards(client, key.split)
        if key.index >= most:
            raise ShardError(
                f"shard {key.index} of {key.client_id}, which announced {_announced(client, key.split)} "
                f"samples of split {key.split}: expected an index below {most}"
            )

    def check_size(self, key: ShardKey, client: ClientRecord | None, num_samples: int) -> None:
        """Refuse a shard with more samples than are left for it: 2 samples must not buy room for 64.

        Raises:
            ShardError: Names what was announced.
        """
        announced = _announced(client, key.split)
        left = announced - key.index * self.shard_samples
        if num_samples > left:
            raise ShardError(
                f"shard {key.index} of {key.client_id} holds {num_samples} samples, expected {left} at most: "
                f"it announced {announced} samples of split {key.split}"
            )

    def check_room(self) -> None:
        """Refuse uploads while the disk is nearly full; what frees space goes on.

        Raises:
            NoRoomError: Says how much is free, and how much must be.
        """
        trouble = self.trouble()
        if trouble:
            raise NoRoomError(f"{trouble}; uploads wait until somebody has made room")

    def check_share(self, key: ShardKey) -> None:
        """Refuse a device that has more than its share of a disk that is half full of uploads.

        Small bodies become large shards: without it one device would have the room of all.

        Raises:
            NoRoomError: Says how much it has, and of what.
        """
        own = self._kept_of(key).num_bytes
        if not self.limits.reserve_bytes or not own:
            return
        free = max(0, min(map(_free_bytes, self.folders)) - self.limits.reserve_bytes)
        room = free + sum(each.num_bytes for each in list(self._kept.values()))
        if own * self.num_devices <= room or 2 * free >= room:
            return
        trouble = (
            f"{key.client_id} has {own / 1e6:.0f} MB of the {room / 1e6:.0f} MB that uploads may take here, "
            f"more than its share among {self.num_devices} devices"
        )
        if key.client_id not in self._told:
            self._told.add(key.client_id)
            _logger.warning("%s: its uploads wait; look at what it sends, or make room", trouble)
        raise NoRoomError(f"{trouble}: it waits until there is more room")

    def count(self, key: ShardKey, num_bytes: int) -> None:
        """Remember the size of a shard that is kept."""
        kept = self._kept_of(key)
        kept.num_bytes += num_bytes - kept.sizes.get((key.split, key.index), 0)
        kept.sizes[key.split, key.index] = num_bytes

    def _kept_of(self, key: ShardKey) -> _Kept:
        """What is kept of a device's round; of an earlier one nothing is, soon."""
        kept = self._kept.get(key.client_id)
        if kept is None or kept.round_num != key.round_num:
            kept = self._kept[key.client_id] = _Kept(key.round_num)
        return kept

    def trouble(self) -> str:
        """Why there is no room for uploads; empty where there is."""
        reserve = self.limits.reserve_bytes
        if not reserve:
            return ""
        free = min(_free_bytes(folder) for folder in self.folders)
        is_short = free < reserve
        trouble = (
            f"{NO_ROOM}: {free / 1e6:.0f} MB are free, {reserve / 1e6:.0f} MB stay reserved"
            if is_short
            else ""
        )
        if is_short and not self._is_short:
            # Once: every device asks again and again, and the log may lie on that disk.
            _logger.warning("%s; devices wait (gkt serve --reserve-disk)", trouble)
        self._is_short = is_short
        return trouble


def _announced(client: ClientRecord | None, split: str) -> int:
    if client is None:
        return 0
    return client.num_examples if split == "train" else client.num_validation_examples


def _free_bytes(folder: Path) -> int:
    # The folder of blobs is made with the first of them.
    status = os.statvfs(existing_above(folder))
    return status.f_bavail * status.f_frsize
