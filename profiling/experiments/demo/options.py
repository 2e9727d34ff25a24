"""What a demo run is asked to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gkt_core.config.run_config import RunConfig


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """Where the data come from and how they are split; the rest is the run's hyper-parameters.

    Attributes:
        dataset: ``digits``, ``cifar10``, a path to an ``.npz`` or to an image folder.
        partition: ``iid`` or ``dirichlet``.
        dirichlet_alpha: Concentration of the Dirichlet split.
        validation_share: Share of each device's samples that is never trained on.
        image_size: Pixels, or None for the dataset's own.
        limit: Number of training images, or None for all.
        data_root: Where downloads are kept.
        edge_network: The devices' network.
        server_network: The server's.
        port: Of the server; 0 for a free one.
        device_threads: CPU threads of each device.
        server_threads: CPU threads of the trainer; 0 for all cores.
        out: Output folder.
        meter_wire: Whether devices connect through a relay that counts every byte, into ``wire.json``.
    """

    dataset: str
    partition: str
    dirichlet_alpha: float
    validation_share: float
    image_size: int | None
    limit: int | None
    data_root: Path
    edge_network: str
    server_network: str
    port: int
    device_threads: int
    server_threads: int
    out: Path
    meter_wire: bool = False

    def describe(self, config: RunConfig) -> dict[str, Any]:
        """Options and hyper-parameters in one JSON-compatible object."""
        own = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}
        return {**own, **config.to_dict()}


# What suits a laptop and a few minutes, where it differs from the paper's setting.
DEMO_DEFAULTS: dict[str, Any] = {
    "num_clients": 4,
    "rounds": 5,
    "server_epochs": 6,
    "server_batch_size": 32,
    "codec": "uint8",
}
_FEW_EXAMPLES = 2000


def derived_defaults(split: dict[str, Any]) -> dict[str, Any]:
    """What suits the data: few server epochs where there are many samples, no mirror images of digits.

    Args:
        split: What ``partition.json`` holds.
    """
    flip = bool(split["horizontal_flip"])
    num_examples = sum(client["num_examples"] for client in split["clients"])
    return {
        "crop_padding": max(1, int(split["image_size"]) // (8 if flip else 16)),
        "horizontal_flip": flip,
        "server_epochs": DEMO_DEFAULTS["server_epochs"] if num_examples <= _FEW_EXAMPLES else 4,
    }
