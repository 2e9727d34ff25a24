"""What a device lets a run ask of it: a run says how much is trained, and may not say just anything."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from gkt_core.config.run_config import RunConfig
from gkt_core.errors import MessageError, ProtocolVersionError
from gkt_core.printable import printable
from gkt_core.version import __version__

# A thousand times what a run of any size wants; batches and shards are of samples that a device has.
MOST: Mapping[str, float] = {
    "num_clients": 1_000_000,
    "rounds": 1_000_000,
    "local_epochs": 1000,
    "batch_size": 65_536,
    "shard_samples": 1_000_000,
    "max_staleness": 1_000_000,
    "edge_lr": 1000.0,
    "temperature": 1000.0,
    "alpha": 1000.0,
}


def agreed_config(values: Mapping[str, Any]) -> RunConfig:
    """Read the settings of a server's run.

    Raises:
        ProtocolVersionError: The run has a setting that this version does not know: it cannot leave it out.
        ConfigError: A value is none that a run can have.
        MessageError: The run asks for more than a device does.
    """
    if unknown := sorted(set(values) - {field.name for field in dataclasses.fields(RunConfig)}):
        raise ProtocolVersionError(
            f"the run has settings that this device does not know ({printable(', '.join(unknown)[:200])}): "
            f"its server is newer than gkt-edge {__version__} here: pip install --upgrade gkt-edge"
        )
    config = RunConfig.from_dict(values)
    for name, most in MOST.items():
        value = getattr(config, name)
        if value > most:
            raise MessageError(
                f"the run asks for {name} {value:g}, a device does {most:g} at most: ask whoever runs the "
                "server"
            )
    return config
