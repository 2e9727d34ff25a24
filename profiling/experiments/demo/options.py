"""What a demo run is asked to do."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gkt_core.config.dataclass_options import CheckedOptions, option
from gkt_core.config.network_options import NetworkOptions
from gkt_core.config.output_path import OUTPUT_FOLDER
from gkt_core.config.run_config import RunConfig
from gkt_core.data.augment import view_defaults
from gkt_core.data.options import DatasetOptions
from gkt_core.data.split import SplitOptions
from gkt_core.tracking.options import TrackOptions

# Fields of the options without an option of their own: hyper-parameters, or of no use here.
LEFT_OUT = ("num_clients", "seed", "pretraining_share")
_MACHINE = "This machine"


def _named_by_time() -> Path:
    return Path("gkt-demo") / time.strftime("%Y%m%d-%H%M%S")


@dataclass(frozen=True, slots=True)
class DemoOptions(CheckedOptions):
    """Where the data come from and how they are split; the rest is the run's hyper-parameters.

    Attributes:
        images: Which images.
        split: How they are split over devices; their number and the seed are the run's.
        networks: The devices' network and the server's.
        out: A new folder.
        port: The server's port; 0 for a free one.
        device_threads: CPU threads of each device.
        server_threads: CPU threads of the trainer; 0 for one fewer than there are cores, as server and
            devices want some too.
        alone_rounds: Rounds that each device trains by itself, to compare with; 0 for until its validation
            accuracy stops rising.
        meter_wire: Let devices connect through a relay that counts every byte, HTTP heads included, into
            wire.json.
        tracking: Where rounds go beside the screen.
    """

    images: DatasetOptions = field(default_factory=DatasetOptions)
    split: SplitOptions = field(default_factory=SplitOptions)
    networks: NetworkOptions = field(default_factory=NetworkOptions)
    out: Path = option(
        _named_by_time, click_type=OUTPUT_FOLDER, shown_default="one below gkt-demo/, named by the time"
    )
    alone_rounds: int = option(0, low=0)
    port: int = option(0, low=0, high=65535, group=_MACHINE)
    device_threads: int = option(1, low=1, high=256, group=_MACHINE)
    server_threads: int = option(0, low=0, high=256, group=_MACHINE)
    meter_wire: bool = option(False, group=_MACHINE)
    tracking: TrackOptions = field(default_factory=TrackOptions)

    @property
    def trainer_threads(self) -> int:
        """CPU threads of the trainer."""
        return self.server_threads or max(1, (os.cpu_count() or 1) - 1)

    def describe(self, config: RunConfig) -> dict[str, Any]:
        """Options and hyper-parameters in one JSON-compatible object."""
        own = asdict(self)
        # No part of what is run.
        del own["tracking"]
        parts = own.pop("images") | own.pop("split") | own.pop("networks")
        shown = {name: parts[name] for name in parts if name not in (*LEFT_OUT, "networks")} | own
        texts = {name: str(value) if isinstance(value, Path) else value for name, value in shown.items()}
        return {**texts, **config.to_dict()}


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
    num_examples = sum(client["num_examples"] for client in split["clients"])
    return {
        **view_defaults(int(split["image_size"]), bool(split["horizontal_flip"])),
        "server_epochs": DEMO_DEFAULTS["server_epochs"] if num_examples <= _FEW_EXAMPLES else 4,
    }
