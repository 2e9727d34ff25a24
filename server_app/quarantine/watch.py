"""Watch over uploads for the trainer: what devices sent before is kept beside the shards."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from gkt_core.config.run_config import RunConfig
from gkt_core.rounds.feature_source import ShardSource
from server_app.quarantine.evidence import Evidence, gather_evidence
from server_app.quarantine.judge import judge
from server_app.store.folder import BlobStore


class Watch:
    """Judges the uploads of one round after another.

    Args:
        blobs: Where the past is kept, with what was made of a device's first and of its last accepted upload.
        config: The run's.
        num_classes: Classes of the run.
    """

    def __init__(self, blobs: BlobStore, config: RunConfig, num_classes: int) -> None:
        self._blobs, self._config, self._num_classes = blobs, config, num_classes

    def check(
        self,
        source: ShardSource,
        *,
        rounds: Mapping[str, int],
        answered: Mapping[str, int],
        trusted: tuple[str, ...],
    ) -> dict[str, str]:
        """Name the devices whose uploads must not be trained on, and remember the others' uploads.

        Args:
            source: The round's training samples.
            rounds: Each device's own number of this round.
            answered: Each device's last round with soft labels, of those that have any.
            trusted: Devices that a person vouches for.

        Returns:
            Reasons by client id.
        """
        evidence = gather_evidence(source)
        last = self._past({each: _name(each, answered.get(each, 0)) for each in evidence})
        first = self._past({each: _first(each) for each in sorted(evidence.keys() | answered.keys())})
        reasons = judge(
            evidence,
            num_classes=self._num_classes,
            first=first,
            last=last,
            same_start=self._config.shared_init,
            trusted=trusted,
        )
        for client_id, own in evidence.items():
            if client_id in reasons:
                # Should a person release it, its past begins anew.
                self._blobs.delete(_first(client_id))
                continue
            data = own.to_bytes()
            if client_id not in first:
                self._blobs.put(_first(client_id), data)
            self._blobs.put(_name(client_id, rounds[client_id]), data)
        return reasons

    def tidy(self, rounds: Mapping[str, int], before: Mapping[str, int]) -> None:
        """Forget the last accepted upload of these devices but one.

        Args:
            rounds: Each device's own number of the round that was just trained.
            before: Each device's last round with soft labels before it.
        """
        for client_id, round_num in rounds.items():
            if before.get(client_id, round_num) != round_num:
                self._blobs.delete(_name(client_id, before[client_id]))

    def _past(self, names: Mapping[str, str]) -> dict[str, Evidence]:
        """What is kept under the name of each device, where anything is."""
        past = {}
        for client_id, name in names.items():
            with contextlib.suppress(FileNotFoundError):
                past[client_id] = Evidence.from_file(str(self._blobs.local_path(name)))
        return past


def _first(client_id: str) -> str:
    return f"watch/first/{client_id}.safetensors"


def _name(client_id: str, round_num: int) -> str:
    return f"watch/{round_num:06d}/{client_id}.safetensors"
