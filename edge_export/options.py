"""What to export: validated where it enters, frozen afterwards."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from gkt_core.bundle.manifest import ENGINE_FILES, ORT_TRAINING, PORTABLE
from gkt_core.config.edge_optimizer import EdgeOptimizer
from gkt_core.config.run_config import check_image_size
from gkt_core.errors import ConfigError
from gkt_core.networks import FULL_NETWORKS, SERVER_NETWORKS
from gkt_core.nn import EdgeNetwork, build_edge_network
from gkt_core.nn.building import build_full_network
from gkt_core.nn.initial_weights import InitialWeights


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What to export; see :class:`gkt_core.bundle.manifest.Manifest` for the other fields' meaning.

    Attributes:
        engines: Engines to write files for.
        init: Weights to begin from, a ``.safetensors`` file; random ones by default.
        low_memory: Whether the portable step makes values again rather than to keep them: slower, smaller.
        ort_format: Whether ``.ort`` files are written beside the ``.onnx`` files, for mobile builds.
    """

    edge_network: str = "resnet8"
    server_network: str = "resnet55"
    num_classes: int = 10
    image_size: int = 32
    pixel_mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    pixel_std: tuple[float, ...] = (0.25, 0.25, 0.25)
    class_names: tuple[str, ...] = ()
    temperature: float = 3.0
    optimizer: EdgeOptimizer = field(default_factory=EdgeOptimizer)
    engines: tuple[str, ...] = tuple(ENGINE_FILES)
    init: Path | None = None
    low_memory: bool = False
    ort_format: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse values that cannot be exported.

        Raises:
            ConfigError: Names the option, what was found and what is expected.
        """
        check_image_size(self.image_size)
        for name, low in (("pixel_mean", 0.0), ("pixel_std", 1e-4)):
            values = getattr(self, name)
            if len(values) != 3 or not all(math.isfinite(v) and low <= v <= 1 for v in values):
                raise ConfigError(f"{name} is {list(values)}, expected three numbers from {low:g} to 1")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ConfigError(f"temperature is {self.temperature}, expected a positive number")
        if self.class_names and len(self.class_names) != self.num_classes:
            raise ConfigError(f"{len(self.class_names)} class names, expected {self.num_classes}")
        if not self.engines or not set(self.engines) <= set(ENGINE_FILES):
            raise ConfigError(f"engines are {list(self.engines)}, expected some of {', '.join(ENGINE_FILES)}")
        if ORT_TRAINING in self.engines and self.optimizer.amsgrad:
            raise ConfigError(
                "ONNX Runtime's optimizer model has no AMSGrad: give --backend portable, whose step has it"
            )

        if self.low_memory and PORTABLE not in self.engines:
            raise ConfigError(
                "--low-memory is for the portable step, the engine is ort-training: give --backend portable"
            )

    @property
    def completing_network(self) -> str:
        """The server network that the extractor is combined with: of ResNet-56 its own trunk."""
        if self.edge_network in FULL_NETWORKS:
            return SERVER_NETWORKS[FULL_NETWORKS.index(self.edge_network)]
        return self.server_network

    def build(self) -> EdgeNetwork:
        """The network to export, with its initial weights.

        Raises:
            ConfigError: The name is unknown, or the class count cannot be.
            ArtifactError: The initial weights cannot be read, or are another network's.
        """
        pixels = {"pixel_mean": self.pixel_mean, "pixel_std": self.pixel_std}
        if self.edge_network in FULL_NETWORKS:
            # FedAvg trains the whole network on the device: the trunk is the device's head.
            full = build_full_network(self.edge_network, self.num_classes, **pixels, seed=self.seed)
            network = EdgeNetwork(full.extractor, full.server, full.normalise)
        else:
            network = build_edge_network(self.edge_network, self.num_classes, **pixels, seed=self.seed)
        InitialWeights(edge=self.init).fill_edge(network)
        return network
