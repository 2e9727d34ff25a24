"""Options that name what a command writes: refused where nothing can be written, before any work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gkt_core.files import check_writable


class OutputPath(click.ParamType[Path]):
    """A path that is going to be written.

    Args:
        is_folder: Whether it is to be a folder, or a file.
        file_suffix: What the names of files end in where it is to be a folder otherwise.
    """

    name = "path"

    def __init__(self, *, is_folder: bool, file_suffix: str = "") -> None:
        self._is_folder, self._file_suffix = is_folder, file_suffix

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Refuse what cannot be written."""
        path = Path(value)
        flag = param.opts[0] if param is not None else "path"
        is_file = bool(self._file_suffix) and path.name.endswith(self._file_suffix)
        check_writable(path, flag, is_folder=self._is_folder and not is_file)
        return path


OUTPUT_FOLDER, OUTPUT_FILE = OutputPath(is_folder=True), OutputPath(is_folder=False)
