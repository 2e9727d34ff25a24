"""When devices upload: in every round, in given rounds, or when their features have changed enough.

In the other rounds a device trains and reports, and the server trains on what it has of it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from gkt_core.errors import ConfigError

EVERY, NEVER = "every", "never"
_ROUNDS = re.compile(r"rounds=([1-9][0-9]{0,8}(?:,[1-9][0-9]{0,8})*)")
_DRIFT = re.compile(r"drift=([0-9.]+(?:[eE][+-]?[0-9]+)?)")


@dataclass(frozen=True, slots=True)
class UploadSchedule:
    """When devices upload; as it stands, in every round.

    Attributes:
        rounds: The only rounds in which they do; None for another rule.
        drift: The relative change of features, since the last upload, from which on they do; None for
            another rule.
    """

    rounds: tuple[int, ...] | None = None
    drift: float | None = None

    @classmethod
    def parse(cls, text: str) -> UploadSchedule:
        """Read ``every``, ``rounds=1,4,16`` or ``drift=0.1``.

        Raises:
            ConfigError: It is none of these.
        """
        if text == EVERY:
            return cls()
        if found := _ROUNDS.fullmatch(text):
            return cls(rounds=tuple(sorted({int(number) for number in found[1].split(",")})))
        if found := _DRIFT.fullmatch(text):
            try:
                drift = float(found[1])
            except ValueError:
                drift = 0.0
            if drift > 0 and math.isfinite(drift):
                return cls(drift=drift)
        raise ConfigError(
            f"uploads is {text[:60]!r}, expected every, rounds=1,4,16 (rounds from 1) or drift=0.1 (above 0)"
        )

    @property
    def is_every(self) -> bool:
        """Whether devices upload in every round."""
        return self.rounds is None and self.drift is None

    def is_due(self, round_num: int, last_round: int, drift: float | None = None) -> bool:
        """Say whether a device uploads in a round.

        A device that missed a round of the schedule makes up for it in its next one.

        Args:
            round_num: From 1.
            last_round: The round of its last upload that the server has; 0 for none.
            drift: How much its features have changed since; None if that is not known.
        """
        if last_round < 1:
            return True
        if self.rounds is not None:
            return any(last_round < each <= round_num for each in self.rounds)
        return self.drift is None or drift is None or drift >= self.drift

    def num_uploads(self, rounds: int) -> int:
        """Count the uploads of a device that takes part in all of so many rounds, at most."""
        if self.rounds is None:
            return rounds
        return len({1, *(each for each in self.rounds if each <= rounds)})


def shared_after(text: str, round_num: int) -> bool:
    """Say whether something is shared after a round, of ``never``, ``every`` or ``rounds=1,4,16``.

    Raises:
        ConfigError: It is none of these.
    """
    if text in (NEVER, EVERY):
        return text == EVERY
    if (found := _ROUNDS.fullmatch(text)) is None:
        raise ConfigError(
            f"share_extractor is {text[:60]!r}, expected never, every or rounds=1,4,16 (rounds from 1)"
        )
    return str(round_num) in found[1].split(",")
