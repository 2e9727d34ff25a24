"""Load a run's own networks where it trains, and ``python -m`` this module to try one out before."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
import torch

from gkt_core.cli import run_command
from gkt_core.errors import ConfigError
from gkt_core.networks import load_network_module
from gkt_core.nn import build_server_network
from server_app.own_networks import noted_networks


def load_own_networks(data_dir: Path) -> None:
    """Let the modules that a run was begun with register their networks in this process.

    Raises:
        ConfigError: One cannot be imported any more.
    """
    for source in noted_networks(data_dir):
        load_network_module(source)


@click.command()
@click.argument("wanted")
@click.argument("sources", nargs=-1)
def try_networks(wanted: str, sources: tuple[str, ...]) -> None:
    """Build a server network and give it two samples' features."""
    for source in sources:
        load_network_module(source)
    expected: dict[str, Any] = json.loads(wanted)
    name, num_classes, shape = expected["name"], expected["num_classes"], expected["features"]
    network = build_server_network(name, num_classes).eval()
    try:
        with torch.no_grad():
            logits = network(torch.zeros(2, *shape))
    # A user's module may fail with anything.
    except Exception as error:
        raise ConfigError(
            f"{name} does not take features {shape}: {type(error).__name__}: {error}"
        ) from error
    given = tuple(getattr(logits, "shape", ()))
    if given != (2, num_classes):
        raise ConfigError(f"{name} gives {list(given)} for two samples, expected [2, {num_classes}]")


if __name__ == "__main__":
    sys.argv[0] = "gkt"
    run_command(try_networks)
