"""The algorithms by name, those of a user's own included. Loads no torch itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from gkt_core.errors import ConfigError
from gkt_core.user_modules import load_user_module

ALGORITHMS = ("fedgkt", "fedavg", "split_learning", "centralized", "ecofed")
# What each has by default in a simulation, where it differs from the run's.
SIMULATION_DEFAULTS: dict[str, dict[str, Any]] = {
    "fedgkt": {"rounds": 10},
    "fedavg": {"rounds": 10, "local_epochs": 5},
    "split_learning": {"rounds": 10, "local_epochs": 5},
    "centralized": {"rounds": 10, "local_epochs": 5},
    "ecofed": {"rounds": 10, "codec": "uint8"},
}


def simulation_defaults(algorithm: str) -> dict[str, Any]:
    """Give what an algorithm has by default in a simulation; one of the user's own has what FedAvg has."""
    return SIMULATION_DEFAULTS.get(algorithm, SIMULATION_DEFAULTS["fedavg"])


# Packages that are installed name their algorithms here: `fedprox = "their_package:FedProx"`.
ENTRY_POINTS = "gkt.algorithms"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_OWN = re.compile(r"(?P<source>.+):(?P<name>[A-Za-z_]\w*)")

_registered: dict[str, Callable[..., Any]] = {}


def register_algorithm(name: str, build: Callable[..., Any]) -> None:
    """Make an algorithm of one's own known as ``--algorithm NAME``, and to ``gkt_core.simulate``.

    Args:
        name: Lower-case letters, digits and ``_``; none of the built-in names.
        build: A subclass of :class:`gkt_core.Algorithm`, or what builds one: called with a federation, a
            config, and by name ``edge_network``, ``server_network``, ``device`` and settings of its own.

    Raises:
        ConfigError: The name cannot be used.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"algorithm name {name[:60]!r}: expected up to 40 of a-z, 0-9, '_', a letter first")
    if name in ALGORITHMS:
        raise ConfigError(f"algorithm name {name!r} is a built-in one: choose another")
    _registered[name] = build


def algorithm_names() -> tuple[str, ...]:
    """Built-in and registered names, then those of installed packages."""
    return tuple(dict.fromkeys((*ALGORITHMS, *_registered, *_installed())))


def is_algorithm(name: str) -> bool:
    """Whether a name is known, or has the form ``module:Class`` or ``file.py:Class``."""
    return name in algorithm_names() or _OWN.fullmatch(name) is not None


def own_algorithm(name: str) -> Callable[..., Any]:
    """Find what builds an algorithm that is not built in; imports the user's module.

    Raises:
        ConfigError: There is none of this name, or it cannot be imported.
    """
    if name in _registered:
        return _registered[name]
    if name in (installed := _installed()):
        try:
            built: Callable[..., Any] = installed[name].load()
        except Exception as error:
            # A user's module may fail with anything.
            raise ConfigError(
                f"cannot load the algorithm {name} ({installed[name].value}): {type(error).__name__}: {error}"
            ) from error
        return built
    if (own := _OWN.fullmatch(name)) is None:
        raise ConfigError(
            f"unknown algorithm {name!r}, expected one of {', '.join(algorithm_names())}, or one of your own "
            "as file.py:Class or module:Class"
        )
    module = load_user_module(own["source"], "an algorithm")
    build = getattr(module, own["name"], None)
    if not callable(build):
        raise ConfigError(f"{own['source']} has no class {own['name']}: name the algorithm as file.py:Class")
    made: Callable[..., Any] = build
    return made


def _installed() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
