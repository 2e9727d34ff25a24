"""An artifact bundle: everything that devices and server need, in one folder with a manifest."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch.utils.hooks import RemovableHandle

from edge_export.combined_template import combined_template
from edge_export.ort_artifacts import write_ort_artifacts
from edge_export.training_graph import OPSET, training_graph
from gkt_core import __version__
from gkt_core.config import check_image_size
from gkt_core.errors import ConfigError
from gkt_core.files import new_folder
from gkt_core.manifest import (
    CHECKPOINT,
    COMBINED_TEMPLATE,
    EVAL_MODEL,
    FORMAT_VERSION,
    NOMINAL_CHECKPOINT,
    OPTIMIZER_MODEL,
    TRAINING_MODEL,
    BatchNormState,
    Manifest,
    describe_files,
    write_manifest,
)
from gkt_core.nn import (
    CombinedNetwork,
    EdgeNetwork,
    build_edge_network,
    build_server_network,
    feature_shape,
)
from gkt_core.nn.networks import example_images

_ORT_FILES = (TRAINING_MODEL, EVAL_MODEL, OPTIMIZER_MODEL, CHECKPOINT, NOMINAL_CHECKPOINT)
_PACKAGES = ("torch", "onnx", "onnxruntime-training-cpu", "numpy")


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What to export; see :class:`gkt_core.manifest.Manifest` for the fields' meaning."""

    edge_network: str = "resnet8"
    server_network: str = "resnet55"
    num_classes: int = 10
    image_size: int = 32
    pixel_mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    pixel_std: tuple[float, ...] = (0.25, 0.25, 0.25)
    class_names: tuple[str, ...] = ()
    temperature: float = 3.0
    optimizer: str = "adam"
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


def export_bundle(options: ExportOptions, out: Path) -> Manifest:
    """Write a bundle with fresh weights; all or nothing.

    Args:
        options: What to export.
        out: A folder that must not exist yet, or be empty.

    Returns:
        The manifest that was written.

    Raises:
        ConfigError: An option is wrong.
        InputError: ``out`` cannot become a new folder.
    """
    edge = build_edge_network(
        options.edge_network,
        options.num_classes,
        pixel_mean=options.pixel_mean,
        pixel_std=options.pixel_std,
        seed=options.seed,
    )
    server = build_server_network(options.server_network, options.num_classes, seed=options.seed)
    with new_folder(out) as folder:
        graph = training_graph(
            edge,
            num_classes=options.num_classes,
            image_size=options.image_size,
            temperature=options.temperature,
        )
        settings = write_ort_artifacts(graph, options.optimizer, folder)
        combined = CombinedNetwork(edge.extractor, server, edge.normalise)
        template, slots = combined_template(combined, image_size=options.image_size)
        (folder / COMBINED_TEMPLATE).write_bytes(template)
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            edge_network=options.edge_network,
            server_network=options.server_network,
            num_classes=options.num_classes,
            image_size=options.image_size,
            features=list(feature_shape(edge, options.image_size)),
            pixel_mean=list(options.pixel_mean),
            pixel_std=list(options.pixel_std),
            class_names=list(options.class_names),
            temperature=float(options.temperature),
            optimizer=options.optimizer,
            optimizer_settings=dict(settings),
            opset=OPSET,
            seed=options.seed,
            batch_norms=_batch_norms(edge, options.image_size),
            template_slots={name: dataclasses.asdict(slot) for name, slot in slots.items()},
            files=describe_files(folder, (*_ORT_FILES, COMBINED_TEMPLATE)),
            versions={"gkt-edge": __version__, **{name: version(name) for name in _PACKAGES}},
        )
        write_manifest(folder, manifest)
    return manifest


def _batch_norms(edge: EdgeNetwork, image_size: int) -> list[BatchNormState]:
    """How many pixels each batch normalisation sees, by looking."""
    found: list[BatchNormState] = []

    def record(name: str, module: torch.nn.BatchNorm2d) -> RemovableHandle:
        def hook(_: torch.nn.Module, inputs: tuple[torch.Tensor], __: torch.Tensor) -> None:
            height, width = inputs[0].shape[2:]
            found.append(BatchNormState(f"{name}.running_var", height * width, float(module.momentum or 0.0)))

        return module.register_forward_hook(hook)

    norms = [(n, m) for n, m in edge.named_modules() if isinstance(m, torch.nn.BatchNorm2d)]
    handles = [record(name, module) for name, module in norms]
    was_training = edge.training
    edge.eval()
    with torch.no_grad():
        edge(example_images(1, image_size))
    edge.train(was_training)
    for handle in handles:
        handle.remove()
    return found
