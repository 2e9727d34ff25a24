"""What a device keeps of rounds that are over: a server that is restored from a backup goes back to one.

Weights and optimizer of a round take 130 kB with the paper's ResNet-8, so that 16 MB hold 120 rounds.
"""

from __future__ import annotations

import re
from pathlib import Path

# Of checkpoints of rounds before the last one.
MOST_PAST_BYTES = 16_000_000
_AFTER_ROUND = re.compile(r"checkpoint-(\d{6,})")
_UPLOAD = re.compile(r"upload-(\d{6,})\.safetensors")
# Of uploads before the oldest round that is kept: what is trained on, and what answers are of.
_UPLOADS_BEFORE = 2


class PastRounds:
    """The checkpoints in a device's folder.

    Args:
        folder: The device's.
        most_bytes: What those of earlier rounds may have together.
    """

    def __init__(self, folder: Path, most_bytes: int = MOST_PAST_BYTES) -> None:
        self._folder, self._most_bytes = folder, most_bytes

    def tidy(self, current: Path) -> None:
        """Drop all but the current checkpoint, and as many after earlier rounds as there is room for."""
        kept = self._after_rounds()
        left = self._most_bytes
        for _, path in sorted(kept.items(), reverse=True):
            if path != current and left >= 0:
                left -= path.stat().st_size
            if left < 0 and path != current:
                path.unlink(missing_ok=True)
        for path in self._folder.glob("checkpoint-*"):
            # In the middle of a round that is over, or of this one.
            if path != current and not _AFTER_ROUND.fullmatch(path.name):
                path.unlink(missing_ok=True)

    def last_round(self, most: int) -> int | None:
        """Give the last round up to ``most`` whose checkpoint is kept; None for none."""
        return max((number for number in self._after_rounds() if number <= most), default=None)

    def rename(self, checkpoint: Path, round_num: int) -> None:
        """Let a checkpoint be the one after this round."""
        checkpoint.replace(self._folder / f"checkpoint-{round_num:06d}")

    def drop_after(self, round_num: int) -> None:
        """Forget what comes after a round: it never was, for the server."""
        for path in self._folder.glob("checkpoint-*"):
            named = _AFTER_ROUND.fullmatch(path.name)
            if named is None or int(named[1]) > round_num:
                path.unlink(missing_ok=True)
        for number, path in self._uploads().items():
            if number > round_num:
                path.unlink(missing_ok=True)

    def drop_uploads(self, before: int) -> None:
        """Forget uploads before that of a round, which no round needs that is kept."""
        uploads = self._uploads()
        oldest = min(self._after_rounds(), default=before)
        earlier = sorted(number for number in uploads if number < min(before, oldest))
        for number in earlier[:-_UPLOADS_BEFORE]:
            uploads[number].unlink(missing_ok=True)

    def _after_rounds(self) -> dict[int, Path]:
        return self._numbered("checkpoint-*", _AFTER_ROUND)

    def _uploads(self) -> dict[int, Path]:
        return self._numbered("upload-*.safetensors", _UPLOAD)

    def _numbered(self, pattern: str, name: re.Pattern[str]) -> dict[int, Path]:
        named = ((name.fullmatch(path.name), path) for path in self._folder.glob(pattern))
        return {int(each[1]): path for each, path in named if each is not None}
