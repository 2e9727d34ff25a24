"""Showing what a device does: a live bar for a person, plain lines for a file."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

_WORDS = {
    "train": "trains",
    "upload": "extracts and uploads",
    "wait": "waits for the others",
    "model": "takes the model",
}


class DeviceProgress:
    """A :class:`edge_runtime.device.DeviceListener` on stderr; stdout stays free for results."""

    def __init__(self, client_id: str) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._client_id = client_id
        self._task: TaskID | None = None
        self._phase = ("", 0)
        self._bar: Progress | None = None
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(),
                console=self._console,
                transient=True,
            )
        self._started, self._done = 0.0, 0

    def __enter__(self) -> DeviceProgress:
        """Begin to show."""
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()

    def phase(self, name: str, round_num: int, num_images: int) -> None:
        """A phase begins."""
        if (name, round_num) == self._phase:
            return
        self._phase = (name, round_num)
        self._started, self._done = time.monotonic(), 0
        if self._bar is None:
            return
        if self._task is not None:
            self._bar.remove_task(self._task)
        where = f", round {round_num}" if round_num else ""
        self._task = self._bar.add_task(
            f"{self._client_id} {_WORDS[name]}{where}", total=num_images or None, rate=""
        )

    def images(self, num_images: int) -> None:
        """So many images more are done."""
        self._done += num_images
        if self._bar is not None and self._task is not None:
            rate = self._done / max(1e-6, time.monotonic() - self._started)
            self._bar.update(self._task, advance=num_images, rate=f"{rate:.0f} images/s")

    def note(self, line: str) -> None:
        """A line of the log."""
        self._console.print(f"{time.strftime('%H:%M:%S')} {line}", markup=False)
