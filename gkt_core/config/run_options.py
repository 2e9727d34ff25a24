"""Command-line options for the hyper-parameters of a run, made from :class:`RunConfig` itself."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import click

from gkt_core.config.run_config import (
    BATCH_MIXING,
    CODECS,
    DIRECTIONS,
    EDGE_OPTIMIZERS,
    LR_SCHEDULES,
    MODES,
    PRECISIONS,
    SERVER_OPTIMIZERS,
    SOFT_LABEL_SOURCES,
    TEACHER_VIEWS,
    RunConfig,
)

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

_OPTION_NAMES = {"num_clients": "--clients"}
_CHOICES = {
    "mode": MODES,
    "edge_optimizer": EDGE_OPTIMIZERS,
    "lr_schedule": LR_SCHEDULES,
    "direction": DIRECTIONS,
    "codec": CODECS,
    "soft_labels": SOFT_LABEL_SOURCES,
    "server_optimizer": SERVER_OPTIMIZERS,
    "batch_mixing": BATCH_MIXING,
    "teacher_view": TEACHER_VIEWS,
    "precision": PRECISIONS,
}


def _descriptions() -> dict[str, str]:
    """First sentence of each attribute in the class's docstring: one source for help and reference."""
    text = (RunConfig.__doc__ or "").split("Attributes:")[1]
    entries = re.findall(r"^\s{8}(\w+): (.+?)(?=^\s{8}\w+: |\Z)", text, flags=re.MULTILINE | re.DOTALL)
    return {name: " ".join(body.split()).replace("``", "") for name, body in entries}


def run_config_options(
    *, defaults: Mapping[str, Any] | None = None, leave_out: tuple[str, ...] = ()
) -> Callable[[FunctionT], FunctionT]:
    """Add an option for every hyper-parameter; a value that was not given arrives as None.

    Args:
        defaults: Defaults that differ from :class:`RunConfig`'s, for the help text.
        leave_out: Hyper-parameters without an option.
    """
    hints, help_texts = get_type_hints(RunConfig), _descriptions()
    shown = RunConfig().to_dict() | dict(defaults or {})

    def decorate(function: FunctionT) -> FunctionT:
        for field in reversed(dataclasses.fields(RunConfig)):
            if field.name in leave_out:
                continue
            name = _OPTION_NAMES.get(field.name, "--" + field.name.replace("_", "-"))
            kind: Any = hints[field.name]
            text = f"{help_texts[field.name]} [default: {shown[field.name]}]"
            if kind is bool:
                declaration = f"{name}/--no-{name[2:]}"
                option = click.option(declaration, field.name, default=None, help=text)
            else:
                choice = click.Choice(_CHOICES[field.name]) if field.name in _CHOICES else kind
                option = click.option(name, field.name, type=choice, default=None, help=text)
            function = option(function)
        return function

    return decorate


def build_run_config(
    given: Mapping[str, Any], *, file: Path | None = None, defaults: Mapping[str, Any] | None = None
) -> RunConfig:
    """Merge defaults, a run file and options, the later ones winning.

    Raises:
        ConfigError: A value is wrong.
    """
    values = RunConfig().to_dict() | dict(defaults or {})
    if file is not None:
        RunConfig.from_toml(file)
        import tomllib  # noqa: PLC0415 - only the keys that the file really has

        values |= tomllib.loads(file.read_text(encoding="utf-8"))
    values |= {name: value for name, value in given.items() if value is not None}
    return RunConfig.from_dict(values)
