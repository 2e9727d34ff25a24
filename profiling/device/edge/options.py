"""Options of ``gkt profile edge``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gkt_core.bundle.manifest import ENGINE_FILES
from gkt_core.config.dataclass_options import CheckedOptions, option
from gkt_core.config.run_config import CODECS


@dataclass(frozen=True, slots=True)
class EdgeOptions(CheckedOptions):
    """What to measure, and how long.

    Attributes:
        artifacts: Bundle of gkt export.
        batch_size: Samples in a training step and in an extracted shard.
        steps: Warm calls of each workload.
        warmup: Calls between the first one and those, which do not count.
        cold_runs: Fresh processes whose first call is measured.
        threads: CPU threads of the engine.
        is_pinned: Keep the measuring process on as many cores as it has threads.
        sustained_seconds: Also train that long without a pause, to show throttling: 600 on a board without a
            fan.
        processes: Also train in so many processes at once: what devices on one machine cost each other.
        codec: How shards are packed.
        engine: Which of the bundle's engines; by default the fastest that is installed.
    """

    artifacts: Path
    batch_size: int = option(64, low=2, high=65536)
    steps: int = option(30, low=1, high=10**6)
    warmup: int = option(3, low=0, high=10**6)
    cold_runs: int = option(3, low=1, high=1000)
    threads: int = option(1, low=1, high=256)
    is_pinned: bool = option(False, flag="--pin")
    sustained_seconds: float = option(0.0, aliases=("--seconds",), low=0, high=86400)
    processes: int = option(1, low=1, high=256)
    codec: str = option("uint8", choices=CODECS)
    engine: str | None = option(None, choices=tuple(name.replace("_", "-") for name in ENGINE_FILES))

    @property
    def engine_name(self) -> str | None:
        """The engine as a bundle calls it."""
        return self.engine and self.engine.replace("-", "_")
