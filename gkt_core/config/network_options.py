"""Options of the networks that a run trains, those that a user registers included."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from gkt_core.config.dataclass_options import option
from gkt_core.networks import (
    FULL_NETWORKS,
    completing_network,
    edge_network_names,
    load_network_module,
    server_network_names,
)


class NetworkName(click.ParamType[str]):
    """A network's name, looked up when it is used: ``--networks`` may have added some."""

    name = "network"

    def __init__(self, names: Callable[[], tuple[str, ...]]) -> None:
        self._names = names

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Accept built-in and registered names."""
        if value not in self._names():
            self.fail(f"{value!r} is not one of {', '.join(self._names())}.", param, ctx)
        return str(value)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """Show the names in the help text."""
        return f"[{'|'.join(self._names())}]"


EDGE_OR_FULL = NetworkName(lambda: edge_network_names() + FULL_NETWORKS)


def _load(ctx: click.Context, param: click.Parameter, sources: tuple[str, ...]) -> tuple[str, ...]:
    for source in sources:
        load_network_module(source)
    return sources


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredNetworks:
    """Networks of a user's own; on the command line they are registered before any name is looked up.

    Attributes:
        networks: A module that registers networks of your own, which other options then take by name.
    """

    networks: tuple[str, ...] = option((), is_eager=True, callback=_load, metavar="FILE.py")


@dataclass(frozen=True, slots=True)
class NetworkOptions(RegisteredNetworks):
    """The two networks of a run.

    Attributes:
        edge_network: What a device trains.
        server_network: What the server trains on features; with an extractor it is ResNet-56 or ResNet-110,
            behind a narrow tap with strides that suit it.
    """

    edge_network: str = option("resnet8", flag="--model", click_type=NetworkName(edge_network_names))
    server_network: str = option(
        "resnet55", flag="--server-model", click_type=NetworkName(server_network_names)
    )

    @property
    def completing_network(self) -> str:
        """The server network that the extractor is combined with.

        Raises:
            ConfigError: The two do not fit together.
        """
        return completing_network(self.edge_network, self.server_network)
