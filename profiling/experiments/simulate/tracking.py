"""Rounds of a simulation in the tools of ``--track``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gkt_core.algorithms.base import RoundResult
from gkt_core.tracking.about import About
from gkt_core.tracking.numbers import round_numbers
from gkt_core.tracking.options import TrackOptions
from gkt_core.tracking.trackers import Trackers

Hear = Callable[[int, RoundResult], None]


class Tracking:
    """Hears of rounds for the tools.

    Args:
        trackers: The tools.
    """

    def __init__(self, trackers: Trackers) -> None:
        self._trackers = trackers
        self.result: Mapping[str, Any] | None = None

    def heard(self, other: Hear) -> Hear:
        """Give what hears of a round for another listener, and for the tools."""

        def both(round_num: int, result: RoundResult) -> None:
            other(round_num, result)
            numbers = round_numbers(
                accuracy=result.validation_accuracy,
                loss=result.validation_loss,
                train_loss=result.train_loss,
                upload_bytes=result.upload_bytes,
                download_bytes=result.download_bytes,
            )
            self._trackers.round(round_num, {**numbers, **result.details})

        return both

    def end(self, result: Mapping[str, Any]) -> None:
        """Hear of the result."""
        self.result = result


@contextlib.contextmanager
def tracked(options: TrackOptions, out: Path, settings: Mapping[str, Any]) -> Iterator[Tracking]:
    """Track a run while the block runs; one that stops goes on in the tools another time.

    Args:
        options: Which tools.
        out: Of the run, which is named by it.
        settings: What tools are told of it.

    Raises:
        MissingExtraError: A tool is not installed.
    """
    trackers = Trackers(options.targets, out, About(out.resolve().name, settings))
    tracking = Tracking(trackers)
    try:
        yield tracking
    finally:
        result = tracking.result
        final = None if result is None else {"test/accuracy": float(result["test_accuracy"])}
        trackers.close(ended=result is not None, final=final)
