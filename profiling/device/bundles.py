"""Artifacts of every network that is compared, exported in a fresh process.

FedAvg's devices would train ResNet-56 and ResNet-110 themselves, so these are exported like any edge network.
Tracing takes memory that would be counted otherwise.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gkt_core.bundle.manifest import ORT_TRAINING, PORTABLE
from gkt_core.networks import FULL_NETWORKS
from profiling.device.step_options import StepOptions
from profiling.frame.measuring.fresh_process import answer, measure_fresh


def export_compared(names: tuple[str, ...], folder: Path, options: StepOptions) -> dict[str, Path]:
    """Export edge networks and full networks for ONNX Runtime training.

    Args:
        names: ``resnet8``, ``resnet56`` and so on.
        folder: Where each gets a bundle.
        options: Classes and image size.

    Returns:
        The bundles' folders by name.

    Raises:
        RunFailedError: The exporting process failed.
    """
    sizes = {"num_classes": options.num_classes, "image_size": options.image_size}
    spec = {"names": names, "folder": str(folder), "options": sizes}
    measure_fresh("profiling.device.bundles", spec, what=f"the export of {', '.join(names)}")
    return {name: folder / name for name in names}


def export(spec: Mapping[str, Any]) -> None:
    """Export ``names`` into ``folder`` with ``options``, in the fresh process."""
    # They import torch and onnx.
    from edge_export import ExportOptions, export_bundle  # noqa: PLC0415
    from profiling.device.training_steps import TEMPERATURE  # noqa: PLC0415

    warnings.simplefilter("ignore")
    for name in spec["names"]:
        # A full network on the portable engine is nobody's device yet.
        engines = (ORT_TRAINING,) if name in FULL_NETWORKS else (ORT_TRAINING, PORTABLE)
        options = ExportOptions(
            edge_network=name, engines=engines, temperature=TEMPERATURE, **spec["options"]
        )
        # They are timed and thrown away; gkt export and gkt verify prove what a device trains with.
        export_bundle(options, Path(spec["folder"], name), verify="none")


if __name__ == "__main__":
    answer(export)
