"""Watch over uploads for the trainer: what devices sent before is kept beside the shards."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from gkt_core.config.run_config import RunConfig
from gkt_core.rounds.feature_source import ShardSource
from gkt_core.rounds.label_privacy import chance_kept
from gkt_core.wire.shards import SPLITS
from server_app.quarantine.evidence import Evidence, gather_evidence
from server_app.quarantine.judge import doubtful_labels, judge, not_compared, odd_among_few
from server_app.quarantine.views import Views
from server_app.store.folder import BlobStore

log = logging.getLogger("gkt.trainer")


class Watch:
    """Judges the uploads of one round after another.

    Args:
        blobs: Where the past is kept, with what was made of a device's first and of its last accepted upload.
        config: The run's.
        num_classes: Classes of the run.
        image_size: Height and width of the devices' images in pixels.
        reach: Pixels that a feature sees beyond its own.
    """

    def __init__(
        self, blobs: BlobStore, config: RunConfig, num_classes: int, image_size: int, reach: int = 1
    ) -> None:
        self._blobs, self._config, self._num_classes = blobs, config, num_classes
        self._image_size, self._reach = image_size, reach

    def check(
        self,
        source: ShardSource,
        validation: ShardSource | None,
        *,
        rounds: Mapping[str, int],
        answered: Mapping[str, int],
        trusted: tuple[str, ...],
    ) -> dict[str, str]:
        """Name the devices whose uploads must not be trained on, and remember the others' uploads.

        Args:
            source: The round's training samples.
            validation: The validation samples of the same devices; None where they sent none.
            rounds: Each device's own number of this round.
            answered: Each device's last round with soft labels, of those that have any.
            trusted: Devices that a person vouches for.

        Returns:
            Reasons by client id.
        """

        def views_of(client_id: str, sample_ids: NDArray[np.int64]) -> Views:
            own_round, size = rounds[client_id], self._image_size
            return Views.of_round(self._config, client_id, own_round, sample_ids, size, self._reach)

        sent = {"train": gather_evidence(source, views_of)}
        if validation is not None:
            size = self._image_size
            sent["validation"] = gather_evidence(validation, lambda _, ids: Views.plain(len(ids), size))
        kept_labels = {
            client_id: chance_kept(epsilon, self._num_classes)
            for client_id in source.client_ids
            if (epsilon := source.epsilon_of(client_id))
        }
        if kept_labels:
            log.info("labels are randomised, and say less: %s", ", ".join(sorted(kept_labels)))
        reasons: dict[str, str] = {}
        first_trained: dict[str, Evidence] | None = None
        firsts = {}
        for split, evidence in sent.items():
            # What is known to be poisoned is nothing to compare with.
            rest = {each: own for each, own in evidence.items() if each not in reasons}
            last = self._past({each: _name(split, each, answered.get(each, 0)) for each in rest})
            firsts[split] = self._past(
                {each: _first(split, each) for each in sorted(rest.keys() | answered.keys())}
            )
            named = judge(
                rest,
                num_classes=self._num_classes,
                first=firsts[split],
                last=last,
                same_start=self._config.shared_init,
                trusted=trusted,
                trained_on=first_trained,
                kept_labels=kept_labels,
            )
            words = "" if split == "train" else "of its validation samples: "
            reasons |= {client_id: words + reason for client_id, reason in named.items()}
            first_trained = {**evidence, **firsts["train"]}
            first_trained = {each: own for each, own in first_trained.items() if each not in reasons}
        plain = {each: own for each, own in sent["train"].items() if each not in reasons}
        doubts = odd_among_few(plain)
        if self._config.shared_init:
            # Labels that are exchanged are judged as such, or not at all.
            said, before = (
                {each: own for each, own in some.items() if each not in reasons.keys() | kept_labels.keys()}
                for some in (sent["train"], firsts["train"])
            )
            doubts |= doubtful_labels(said, before, trusted)
        for client_id, what in sorted(doubts.items()):
            log.warning("%s is trained on, and should be looked at: %s", client_id, what)
        for split, evidence in sent.items():
            for client_id, own in evidence.items():
                if client_id in reasons:
                    # Should a person release it, its past begins anew.
                    self._blobs.delete(_first(split, client_id))
                    continue
                data = own.to_bytes()
                if client_id not in firsts[split]:
                    if split == "train" and (silent := not_compared(own)):
                        log.info("%s: nothing to compare: %s", client_id, "; ".join(silent))
                    self._blobs.put(_first(split, client_id), data)
                self._blobs.put(_name(split, client_id, rounds[client_id]), data)
        return dict(sorted(reasons.items()))

    def tidy(self, rounds: Mapping[str, int], before: Mapping[str, int]) -> None:
        """Forget the last accepted upload of these devices but one.

        Args:
            rounds: Each device's own number of the round that was just trained.
            before: Each device's last round with soft labels before it.
        """
        for client_id, round_num in rounds.items():
            if before.get(client_id, round_num) != round_num:
                for split in SPLITS:
                    self._blobs.delete(_name(split, client_id, before[client_id]))

    def _past(self, names: Mapping[str, str]) -> dict[str, Evidence]:
        """What is kept under the name of each device, where anything is."""
        past = {}
        for client_id, name in names.items():
            with contextlib.suppress(FileNotFoundError):
                kept = Evidence.from_file(str(self._blobs.local_path(name)))
                if kept is not None:
                    past[client_id] = kept
        return past


_FOLDERS = {"train": "watch", "validation": "watch/validation"}


def _first(split: str, client_id: str) -> str:
    return f"{_FOLDERS[split]}/first/{client_id}.safetensors"


def _name(split: str, client_id: str, round_num: int) -> str:
    return f"{_FOLDERS[split]}/{round_num:06d}/{client_id}.safetensors"
