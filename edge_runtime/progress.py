"""Showing what a device does: a live bar for a person, plain lines for a file, JSON lines for a program."""

from __future__ import annotations

import json
import time
from typing import Any

import click
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from gkt_core.terminal import console

_SECONDS_BETWEEN_LINES = 1.0
# Of a log: what a device waits for changes with every other device.
_SECONDS_BETWEEN_WAITS = 10.0
_WORDS = {
    "train": "trains",
    "upload": "extracts and uploads",
    "wait": "waits",
    "model": "takes the model",
}


class DeviceProgress:
    """A :class:`edge_runtime.listener.DeviceListener` on stderr; stdout stays free for results.

    JSON lines have ``event`` (``phase``, ``images`` or ``note``), ``time`` (seconds since 1970) and
    ``client_id``; a phase has ``phase``, ``round_num``, ``num_images`` and, of a device that waits,
    ``reason``; a line about images (one a second at most) also ``done`` and ``images_per_second``, a note has
    ``message``. Plain lines tell phases too, and what is waited for when it changes.

    Args:
        client_id: The device.
        style: ``bar``, ``plain`` or ``json``; by default a bar on a terminal and plain lines elsewhere.
    """

    def __init__(self, client_id: str, style: str | None = None) -> None:
        self._console = console(stderr=True)
        self._client_id = client_id
        self._is_json = style == "json"
        self._task: TaskID | None = None
        self._phase: dict[str, Any] = {"phase": "", "round_num": 0, "num_images": 0}
        self._reason = ""
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

    def phase(self, name: str, round_num: int, num_images: int, reason: str = "") -> None:
        """Show that a phase begins, or that a device waits for something else than before."""
        is_new = (name, round_num) != (self._phase["phase"], self._phase["round_num"])
        is_early = time.monotonic() - self._started < _SECONDS_BETWEEN_WAITS
        if not is_new and (reason == self._reason or is_early):
            return
        self._phase = {"phase": name, "round_num": round_num, "num_images": num_images}
        self._reason = reason
        self._started, self._done = time.monotonic(), 0
        if self._is_json:
            self._line("phase", **self._phase, **({"reason": reason} if reason else {}))
            return
        where = f", round {round_num}" if round_num else ""
        line = f"{self._client_id} {_WORDS[name]}{where}" + (f": {reason}" if reason else "")
        if self._bar is None:
            self.note(line)
            return
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(escape(line), total=num_images or None, rate="")

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
            self._console.print(f"{time.strftime('%H:%M:%S')} {line}", markup=False, soft_wrap=True)

    def _line(self, event: str, **values: Any) -> None:
        document = {"event": event, "time": round(time.time(), 3), "client_id": self._client_id, **values}
        click.echo(json.dumps(document), err=True)
