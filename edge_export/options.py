"""What to export: validated where it enters, frozen afterwards. Loads no torch itself."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import click

from gkt_core.bundle.manifest import ENGINE_FILES, ORT_TRAINING, PORTABLE
from gkt_core.bundle.memory import DEVICE_LIMIT_MB, TRAINER_LIMIT_MB
from gkt_core.bundle.onnx_runtime import can_train
from gkt_core.config.dataclass_options import check_options, option
from gkt_core.config.edge_optimizer import EdgeOptimizer
from gkt_core.config.network_options import EDGE_OR_FULL, NetworkOptions
from gkt_core.config.run_config import MAX_IMAGE_SIZE, MIN_IMAGE_SIZE
from gkt_core.errors import ConfigError, MissingExtraError
from gkt_core.networks import FULL_NETWORKS, SERVER_NETWORKS, completing_network

# How much `gkt export` and `gkt verify` prove of what is written.
Depth = Literal["full", "quick", "none"]
_IMAGES, _FILES = "Images (from --split, if it is given)", "What is written"
_MEMORY = "What it is for"


class ThreeNumbers(click.ParamType[tuple[float, ...]]):
    """Three numbers such as ``0.49,0.48,0.45``, or one for all three channels."""

    name = "numbers"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """Read the numbers."""
        try:
            numbers = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r}: expected three numbers such as 0.49,0.48,0.45", param, ctx)
        return numbers * 3 if len(numbers) == 1 else numbers


class ClassNames(click.ParamType[tuple[str, ...]]):
    """Names such as ``cat,dog,owl``, or a text file with a name a line."""

    name = "names"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Read the names."""
        path = Path(str(value))
        try:
            names = path.read_text(encoding="utf-8").splitlines() if path.is_file() else str(value).split(",")
        except (OSError, ValueError) as error:
            self.fail(f"{path} cannot be read: {error}", param, ctx)
        return tuple(name.strip() for name in names if name.strip())


class EngineNames(click.Choice[str]):
    """An engine as it is typed, or both; stands for the engines' own names."""

    def __init__(self) -> None:
        super().__init__([*(name.replace("_", "-") for name in ENGINE_FILES), "both"])

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Look the engines up."""
        name = super().convert(value, param, ctx)
        return tuple(ENGINE_FILES) if name == "both" else (name.replace("-", "_"),)


def engines_here() -> tuple[str, ...]:
    """Name the engines whose files can be written here: both with the training build of ONNX Runtime."""
    try:
        return tuple(ENGINE_FILES) if can_train() else (PORTABLE,)
    except MissingExtraError:
        # What is missing is named when it is needed, not where options are read.
        return tuple(ENGINE_FILES)


@dataclass(frozen=True, slots=True)
class ExportOptions(NetworkOptions):
    """What to export; see :class:`gkt_core.bundle.manifest.Manifest` for the other fields' meaning.

    Attributes:
        num_classes: Number of classes.
        image_size: Pixels.
        pixel_mean: Mean of R,G,B in 0..1.
        pixel_std: Standard deviation of R,G,B in 0..1.
        horizontal_flip: Whether a mirrored image is still of its class, as it is not for digits and letters;
            runs of the bundle mirror, or do not.
        max_bits: Bits of each number of the features that a run of the bundle may ask devices for, at most.
        class_names: The classes in their order, as cat,dog,owl or a text file with a name a line; owners who
            pack their own photos need them.
        temperature: T of the distillation loss in the graph.
        leakage_penalty: Weight of the distance correlation of images and features in the loss in the graph:
            features then say less of images, and of classes; 0 for none.
        engines: Engines to write files for. portable: one file of standard operators for any ONNX Runtime;
            ort-training: for its training builds. A device takes what it can run, portable first.
        init: Weights to begin from, a .safetensors file with PyTorch's names.
        low_memory: A portable step that makes values again rather than to keep them: a quarter less memory
            at batch 64, a seventh slower.
        memory_limit_mb: Memory of a device, in megabytes: gkt serve chooses batches that fit by estimate, and
            what never fits is refused.
        trainer_memory_mb: Memory of the server's trainer, in megabytes, likewise.
        ort_format: Also write .ort files beside the .onnx files, which mobile builds load.
        seed: Seed of the initial weights.
    """

    edge_network: str = option("resnet8", flag="--model", click_type=EDGE_OR_FULL)
    num_classes: int = option(10, low=2, high=100_000, group=_IMAGES)
    image_size: int = option(32, low=MIN_IMAGE_SIZE, high=MAX_IMAGE_SIZE, multiple_of=4, group=_IMAGES)
    pixel_mean: tuple[float, ...] = option(
        (0.5, 0.5, 0.5), click_type=ThreeNumbers(), multiple=False, shown_default="0.5", group=_IMAGES
    )
    pixel_std: tuple[float, ...] = option(
        (0.25, 0.25, 0.25), click_type=ThreeNumbers(), multiple=False, shown_default="0.25", group=_IMAGES
    )
    horizontal_flip: bool = option(True, group=_IMAGES)
    class_names: tuple[str, ...] = option(
        (), flag="--classes", click_type=ClassNames(), multiple=False, group=_IMAGES
    )
    temperature: float = option(3.0, above=0)
    leakage_penalty: float = option(0.0, low=0, high=1000)
    optimizer: EdgeOptimizer = field(default_factory=EdgeOptimizer)
    engines: tuple[str, ...] = option(
        engines_here,
        flag="--engine",
        click_type=EngineNames(),
        multiple=False,
        shown_default="both, or portable without a training build of ONNX Runtime",
    )
    init: Path | None = option(None, shown_default="random ones")
    low_memory: bool = option(False, flag="--low-memory", group=_FILES)
    memory_limit_mb: int = option(DEVICE_LIMIT_MB, low=1, group=_MEMORY)
    trainer_memory_mb: int = option(TRAINER_LIMIT_MB, low=1, group=_MEMORY)
    ort_format: bool = option(False, flag="--ort-format", group=_FILES)
    max_bits: int | None = option(None, low=1, high=32, shown_default="any", group=_FILES)
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse values that cannot be exported.

        Raises:
            ConfigError: Names the option, what was found and what is expected.
        """
        check_options(self)
        for name, low in (("pixel_mean", 0.0), ("pixel_std", 1e-4)):
            values = getattr(self, name)
            if len(values) != 3 or not all(math.isfinite(v) and low <= v <= 1 for v in values):
                raise ConfigError(f"{name} is {list(values)}, expected three numbers from {low:g} to 1")
        if self.class_names and len(self.class_names) != self.num_classes:
            raise ConfigError(
                f"--classes names {len(self.class_names)} classes, --num-classes says {self.num_classes}: "
                "leave out --num-classes"
            )
        for name in self.class_names:
            if not name.isprintable() or self.class_names.count(name) > 1:
                raise ConfigError(f"the class {name!r} is there twice, or no name that can be printed")
        if not self.engines or not set(self.engines) <= set(ENGINE_FILES):
            raise ConfigError(f"engines are {list(self.engines)}, expected some of {', '.join(ENGINE_FILES)}")
        if ORT_TRAINING in self.engines and self.optimizer.amsgrad:
            raise ConfigError(
                "ONNX Runtime's optimizer model has no AMSGrad: give --engine portable, whose step has it"
            )
        if self.low_memory and PORTABLE not in self.engines:
            raise ConfigError(
                "--low-memory is for the portable step, the engine is ort-training: give --engine portable"
            )

    @property
    def completing_network(self) -> str:
        """The server network that the extractor is combined with: of ResNet-56 its own trunk.

        Raises:
            ConfigError: The two do not fit together.
        """
        if self.edge_network in FULL_NETWORKS:
            return SERVER_NETWORKS[FULL_NETWORKS.index(self.edge_network)]
        return completing_network(self.edge_network, self.server_network)
