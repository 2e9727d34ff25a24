"""Rounds as TensorBoard's event files, written by TensorBoard itself: neither TensorFlow nor PyTorch."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gkt_core.errors import needs
from gkt_core.tracking.about import About, Numbers
from gkt_core.tracking.options import Target

with needs("track"):
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

_STRING = 7


def open_run(target: Target, about: About, run: str) -> TensorBoardRun:
    """Begin an event file in the folder, in one of the run's own; one of an earlier process stays."""
    return TensorBoardRun(Path(target.place) / about.name, about, is_new=not run)


class TensorBoardRun:
    """Writes one event file.

    Args:
        folder: Of the run.
        about: What is written at its beginning.
        is_new: Whether no earlier process has written that.
    """

    def __init__(self, folder: Path, about: About, *, is_new: bool) -> None:
        self.run = about.name
        self._file = EventFileWriter(str(folder))
        if is_new:
            self._add(0, [_text("settings", _table(about.settings))])

    def write(self, step: int, numbers: Numbers) -> None:
        """Write the numbers of a round, and flush."""
        self._add(step, [Summary.Value(tag=name, simple_value=value) for name, value in numbers.items()])

    def _add(self, step: int, values: Iterable[Any]) -> None:
        event = Event(wall_time=time.time(), step=step, summary=Summary(value=values))
        self._file.add_event(event)
        self._file.flush()

    def end(self, *, failed: bool) -> None:
        """Leave it: event files do not say that a run is over."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _text(name: str, text: str) -> Any:
    plugin = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    tensor = TensorProto(dtype=_STRING, string_val=[text.encode()])
    return Summary.Value(tag=name, metadata=plugin, tensor=tensor)


def _table(settings: Any) -> str:
    rows = (f"| {name} | {json.dumps(value)} |" for name, value in sorted(settings.items()))
    return "\n".join(["| setting | value |", "|---|---|", *rows])
