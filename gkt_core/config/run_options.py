"""Command-line options for the hyper-parameters of a run, made from :class:`RunConfig` itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from gkt_core.config.dataclass_options import dataclass_options
from gkt_core.config.run_config import RunConfig, read_run_file

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


def run_config_options(
    *, defaults: Mapping[str, Any] | None = None, leave_out: tuple[str, ...] = ()
) -> Callable[[FunctionT], FunctionT]:
    """Add an option for every hyper-parameter; those that were given arrive as the dict ``hyper_parameters``.

    Args:
        defaults: Defaults that differ from :class:`RunConfig`'s, for the help text.
        leave_out: Hyper-parameters without an option.
    """
    return dataclass_options(
        RunConfig, "hyper_parameters", defaults=defaults, leave_out=leave_out, given_only=True
    )


def build_run_config(
    given: Mapping[str, Any], *, file: Path | None = None, defaults: Mapping[str, Any] | None = None
) -> RunConfig:
    """Merge defaults, a run file and options, the later ones winning.

    Raises:
        ConfigError: A value is wrong.
    """
    from_file = {} if file is None else read_run_file(file)
    chosen = {name: value for name, value in given.items() if value is not None}
    return RunConfig.from_dict({**RunConfig().to_dict(), **(defaults or {}), **from_file, **chosen})
