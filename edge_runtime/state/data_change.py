"""What of a device's data is otherwise than at its last start, and what becomes of it, in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DataChange:
    """How many samples changed, of the training and the validation part together.

    Attributes:
        kept: As they were.
        added: That were not there.
        removed: That are no more.
        exchanged: With another image under the old id.
        relabelled: With the same image under the old id, and another label.
        moved_to_train: That were for validation.
        moved_to_validation: That were trained on.
    """

    kept: int = 0
    added: int = 0
    removed: int = 0
    exchanged: int = 0
    relabelled: int = 0
    moved_to_train: int = 0
    moved_to_validation: int = 0

    def __bool__(self) -> bool:
        return self != DataChange(kept=self.kept)

    def lines(self) -> Iterator[str]:
        """Say what changed, a line a kind, and the rule that holds for it."""
        if not self:
            return
        yield f"the data of this device have changed since its last start; as they were: {self.kept} samples"
        rules = (
            (self.added, "new: trained on for a round without a teacher"),
            (self.removed, "gone: forgotten"),
            (self.exchanged, "with another image under their old id: other samples, which count as new"),
            (self.relabelled, "with another label: trained on with that, for a round without a teacher"),
            (self.moved_to_train, "that were for validation: count as new"),
            (
                self.moved_to_validation,
                "that were trained on are for validation now: accuracy on those says little",
            ),
        )
        for num, rule in rules:
            if num:
                yield f"  {num} {'sample' if num == 1 else 'samples'} {rule}"
        if not self.kept:
            yield (
                "  not one is left of those that it began with: if this is another device's file, stop, and "
                "give each device its own --state-dir"
            )
