"""Keep the rounds of a run for its curves: each is read once, and as many are shown as there is room for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from gkt_core.wire.protocol import RoundMetrics, RoundPage
from server_app.page.messages import Curves

# Points that a curve of a few hundred pixels can show, and rounds that one look reads at most.
MOST_POINTS = 240
_READ_AT_ONCE = 500
_COLUMNS = tuple(each.name for each in dataclasses.fields(Curves))


class RoundColumns:
    """The finished rounds, as columns.

    Args:
        read: Reads rounds: those after one, so many at most.
    """

    def __init__(self, read: Callable[[int, int], RoundPage]) -> None:
        self._read, self._last = read, 0
        self._columns: dict[str, list[float]] = {name: [] for name in _COLUMNS}

    def curves(self) -> Curves:
        """Read what is new, and give the points that are shown: the last round is always one of them.

        Raises:
            StorageUnavailableError: The database does not answer.
        """
        for metrics in self._read(self._last, _READ_AT_ONCE).rounds:
            self._add(metrics)
        num, shown = len(self._columns["round_num"]), MOST_POINTS
        if num <= shown:
            picked = list(range(num))
        else:
            picked = [round(point * (num - 1) / (shown - 1)) for point in range(shown)]
        return Curves(**{name: [column[at] for at in picked] for name, column in self._columns.items()})  # type: ignore[arg-type] # columns of whole numbers hold whole numbers

    def _add(self, metrics: RoundMetrics) -> None:
        for name, column in self._columns.items():
            column.append(getattr(metrics, name))
        self._last = metrics.round_num
