"""A demo that was stopped: what it was asked to do, kept in its folder so that the same folder goes on."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from gkt_core.errors import ConfigError, InputError
from gkt_core.files import check_new_folder, lock_exclusively, write_atomically

BEGUN_NAME = "demo.json"
REPORT_NAME = "report.json"
_LOCK_NAME = "demo.lock"
# What may differ when a demo goes on: where it shows what it does.
_NOT_KEPT = ("out", "as_json")
_GOES_ON = "gkt.demo.goes_on"


def begun_or_new(folder: Path, ctx: click.Context) -> click.Context:
    """Begin a demo in a folder, or go on with the one that was stopped there.

    Args:
        folder: A new folder, or one that holds a demo without its report.
        ctx: Of this command, with the options that were given.

    Returns:
        The same context where the demo is new; one with the options that it was begun with where it goes on.

    Raises:
        ConfigError: The folder holds a demo of other options.
        InputError: It holds something else, or a demo that is finished.
    """
    path = folder / BEGUN_NAME
    if ctx.meta.get(_GOES_ON):
        return ctx
    if not path.is_file():
        check_new_folder(folder)
        return ctx
    if (folder / REPORT_NAME).is_file():
        raise InputError(f"{folder} holds a finished demo: choose another --out, or remove it")
    given, begun = words_given(ctx), _begun(path)["given"]
    differing = {name: words for name, words in given.items() if words != begun.get(name)}
    if differing:
        listed = ", ".join(
            f"{' '.join(words)} instead of {' '.join(begun.get(name, [])) or 'its default'}"
            for name, words in sorted(differing.items())
        )
        raise ConfigError(
            f"{folder} holds a demo of other options ({listed}): leave them out to go on with it, or choose "
            "another --out"
        )
    words = [word for each in begun.values() for word in each] + ["--out", str(folder)]
    words += ["--json"] if ctx.params["as_json"] else []
    again = ctx.command.make_context(ctx.info_name, words)
    again.meta[_GOES_ON] = True
    return again


@contextlib.contextmanager
def note_begun(folder: Path, ctx: click.Context) -> Iterator[int]:
    """Keep in the folder what a demo was begun with, and keep other processes out while the block runs.

    Input that is refused leaves nothing behind.

    Yields:
        Which start of this demo it is, from 1.

    Raises:
        InputError: Another process runs there.
    """
    path = folder / BEGUN_NAME
    made = [each for each in (folder, *folder.absolute().parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    refusal = f"another gkt demo runs in {folder}: wait for its end, or choose another --out"
    lock = lock_exclusively(folder / _LOCK_NAME, refusal)
    try:
        with lock:
            begun: dict[str, Any] = {"given": words_given(ctx), "num_starts": 0}
            if path.is_file():
                begun = _begun(path)
            begun["num_starts"] += 1
            write_atomically(path, (json.dumps(begun, indent=2) + "\n").encode())
            yield begun["num_starts"]
    except InputError:
        if not (folder / "data").exists():
            shutil.rmtree(folder / "logs", ignore_errors=True)
            for name in (BEGUN_NAME, _LOCK_NAME):
                (folder / name).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                for each in made:
                    each.rmdir()
        raise


def _begun(path: Path) -> dict[str, Any]:
    try:
        begun: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not all(isinstance(words, list) for words in begun["given"].values()):
            raise ValueError("the options are no lists of words")
        begun["num_starts"] += 0
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} cannot be read ({error}): remove {path.parent}") from error
    return begun


def words_given(ctx: click.Context) -> dict[str, list[str]]:
    """The options of a command line by name, each as the words that give it again."""
    words: dict[str, list[str]] = {}
    for param in ctx.command.params:
        name = param.name or ""
        if name in _NOT_KEPT or ctx.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        value = ctx.params[name]
        if isinstance(value, bool):
            words[name] = [param.opts[0] if value else param.secondary_opts[0]]
            continue
        values = value if isinstance(value, tuple) else (value,)
        words[name] = [word for each in values for word in (param.opts[0], str(each))]
    return words
