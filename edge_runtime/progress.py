"""Showing what a device does: a live bar for a person, plain lines for a file, JSON lines for a program."""

from __future__ import annotations

import json
import time
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

_SECONDS_BETWEEN_LINES = 1.0
_WORDS = {
    "train": "trains",
    "upload": "extracts and uploads",
    "wait": "waits for the others",
    "model": "takes the model",
}


class DeviceProgress:
    """A :class:`edge_runtime.listener.DeviceListener` on stderr; stdout stays free for results.

    JSON lines have ``event`` (``phase``, ``images`` or ``note``), ``time`` (seconds since 1970) and
    ``client_id``; a phase has ``phase``, ``round_num`` and ``num_images``, a line about images (one a second
    at most) also ``done`` and ``images_per_second``, a note has ``message``.

    Args:
        client_id: The device.
        style: ``bar``, ``plain`` or ``json``; by default a bar on a terminal and plain lines elsewhere.
    """

    def __init__(self, client_id: str, style: str | None = None) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._client_id = client_id
        self._is_json = style == "json"
        self._task: TaskID | None = None
        self._phase: dict[str, Any] = {"phase": "", "round_num": 0, "num_images": 0}
        self._bar: Progress | None = None
        if style == "bar" or (style is None and self._console.is_terminal):
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(),
                console=self._console,
                transient=True,
            )
        self._started, self._done, self._told = 0.0, 0, 0.0

    def __enter__(self) -> DeviceProgress:
        """Begin to show."""
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()

    def phase(self, name: str, round_num: int, num_images: int) -> None:
        """Show that a phase begins."""
        if (name, round_num) == (self._phase["phase"], self._phase["round_num"]):
            return
        self._phase = {"phase": name, "round_num": round_num, "num_images": num_images}
        self._started, self._done = time.monotonic(), 0
        if self._is_json:
            self._line("phase", **self._phase)
        if self._bar is None:
            return
        if self._task is not None:
            self._bar.remove_task(self._task)
        where = f", round {round_num}" if round_num else ""
        self._task = self._bar.add_task(
            f"{self._client_id} {_WORDS[name]}{where}", total=num_images or None, rate=""
        )

    def images(self, num_images: int) -> None:
        """Show that so many images more are done."""
        self._done += num_images
        now = time.monotonic()
        rate = self._done / max(1e-6, now - self._started)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=num_images, rate=f"{rate:.0f} images/s")
        is_last = self._done >= self._phase["num_images"]
        if self._is_json and (is_last or now - self._told >= _SECONDS_BETWEEN_LINES):
            self._told = now
            self._line("images", **self._phase, done=self._done, images_per_second=round(rate, 1))

    def note(self, line: str) -> None:
        """Show a line of the log."""
        if self._is_json:
            self._line("note", message=line)
        else:
            self._console.print(f"{time.strftime('%H:%M:%S')} {line}", markup=False)

    def _line(self, event: str, **values: Any) -> None:
        document = {"event": event, "time": round(time.time(), 3), "client_id": self._client_id, **values}
        click.echo(json.dumps(document), err=True)
