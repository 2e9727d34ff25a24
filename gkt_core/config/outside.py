"""Options from outside of the command line: environment variables and a TOML file, for every command.

::

    GKT_SERVE_ROUND_DEADLINE=3600 gkt serve --config gkt.toml

    # gkt.toml
    rounds = 20                      # hyper-parameters of a run stand above all tables

    [serve]
    data-dir = "run"
    public-url = "https://gkt.example.org"

    [clients.list]
    data-dir = "run"

The command line wins over the environment, that over the file, and the file over defaults.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from gkt_core.errors import ConfigError

PREFIX = "GKT"
# Of every command, and nothing to be kept in a file.
_NOT_IN_FILES = frozenset({"config", "help", "version"})


def key_of(param: click.Option) -> str:
    """An option as it stands in a file: ``round-deadline``."""
    return next(name for name in param.opts if name.startswith("--"))[2:]


def variable_of(path: Sequence[str], param: click.Option) -> str:
    """The environment variable that gives an option of a command its value.

    Args:
        path: Names of the command, ``("clients", "list")``.
        param: The option.
    """
    return "_".join((PREFIX, *path, key_of(param))).replace("-", "_").upper()


def outside_values(
    options: Sequence[click.Option],
    path: Sequence[str],
    file: str | Path | None,
    environment: Mapping[str, str],
    commands: Collection[str] = (),
    groups: Collection[str] = (),
) -> dict[str, Any]:
    """Values by the names of parameters, for click's ``default_map``.

    Args:
        options: Of the command; those without a long name are left out.
        path: Names of the command.
        file: A TOML file with a table for it; None for none.
        environment: Of the process.
        commands: What tables may be called; anything, where none is given.
        groups: Those among them that hold tables of commands, and nothing else.

    Raises:
        ConfigError: The file cannot be read, or names an option or a command that there is not.
    """
    known = {key_of(each): each for each in options if any(name.startswith("--") for name in each.opts)}
    values: dict[str, Any] = {}
    if file is not None:
        for name, value in _table(Path(file), path, commands, groups).items():
            key = name.replace("_", "-")
            if key in _NOT_IN_FILES or key not in known:
                raise ConfigError(f"{file}: [{'.'.join(path)}] {name}: {_instead(name, known)}")
            _check(value, f"{file}: [{'.'.join(path)}] {name}", known[key])
            values[_name(known[key])] = value
    for key, param in known.items():
        text = environment.get(variable_of(path, param), "")
        if text and key not in _NOT_IN_FILES:
            values[_name(param)] = param.type.split_envvar_value(text) if param.multiple else text
    return values


def _name(param: click.Option) -> str:
    assert param.name is not None
    return param.name


def _instead(name: str, known: Mapping[str, click.Option]) -> str:
    near = difflib.get_close_matches(name.replace("_", "-"), known, 1)
    return f"there is no such option, did you mean {near[0]}?" if near else "there is no such option"


def _check(value: Any, where: str, param: click.Option) -> None:
    """Refuse what no option can be made of; values themselves are checked as on the command line."""
    if isinstance(value, dict) or isinstance(value, list) != param.multiple:
        expected = "a list" if param.multiple else "one value"
        raise ConfigError(f"{where} is {value!r}, expected {expected}")


def _table(
    file: Path, path: Sequence[str], commands: Collection[str], groups: Collection[str]
) -> dict[str, Any]:
    """What a file says of one command: nothing is fine, as it may be for others."""
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read --config {file}: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file} is not valid TOML: {error}") from error
    for name, inner in table.items():
        if not isinstance(inner, dict):
            continue
        if commands and name not in commands:
            near = difflib.get_close_matches(name, commands, 1)
            meant = f", did you mean [{near[0]}]?" if near else ""
            raise ConfigError(f"{file}: [{name}] is no command of gkt{meant}")
        loose = [key for key, value in inner.items() if not isinstance(value, dict)] if name in groups else []
        if loose:
            raise ConfigError(f"{file}: [{name}] {loose[0]}: expected tables of its commands, [{name}.NAME]")
    for name in path:
        inner = table.get(name, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{file}: {name} is {inner!r}, expected a table [{'.'.join(path)}]")
        table = inner
    # Tables of commands below this one.
    return {name: value for name, value in table.items() if not isinstance(value, dict)}
