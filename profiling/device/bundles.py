"""Artifacts of every network that is compared: ``python -m profiling.device.bundles SPEC``.

FedAvg's devices would train ResNet-56 and ResNet-110 themselves, so these are exported like any edge network.
That happens in a process of its own: tracing takes memory that would be counted otherwise.
"""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

from gkt_core.bundle.manifest import ORT_TRAINING, PORTABLE
from gkt_core.errors import RunFailedError
from gkt_core.networks import FULL_NETWORKS


def export_compared(
    names: tuple[str, ...], folder: Path, *, num_classes: int, image_size: int, temperature: float
) -> dict[str, Path]:
    """Export edge networks and full networks for ONNX Runtime training.

    Args:
        names: ``resnet8``, ``resnet56`` and so on.
        folder: Where each gets a bundle.
        num_classes: Width of the logits.
        image_size: Pixels.
        temperature: Of the distillation loss, which every exported graph has.

    Returns:
        The bundles' folders by name.

    Raises:
        RunFailedError: The exporting process failed.
    """
    spec = {
        "names": names,
        "folder": str(folder),
        "num_classes": num_classes,
        "image_size": image_size,
        "temperature": temperature,
    }
    done = subprocess.run(
        [sys.executable, "-m", "profiling.device.bundles", json.dumps(spec)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RunFailedError(f"exporting {', '.join(names)} failed: {done.stderr.strip()[-300:]}")
    return {name: folder / name for name in names}


def main() -> None:
    """Export what the first argument says."""
    from edge_export import ExportOptions, export_bundle  # noqa: PLC0415 - imports torch and onnx

    warnings.simplefilter("ignore")
    spec = json.loads(sys.argv[1])
    for name in spec["names"]:
        options = ExportOptions(
            edge_network=name,
            num_classes=spec["num_classes"],
            image_size=spec["image_size"],
            temperature=spec["temperature"],
            # A full network on the portable engine is nobody's device yet.
            engines=(ORT_TRAINING,) if name in FULL_NETWORKS else (ORT_TRAINING, PORTABLE),
        )
        # They are timed and thrown away; gkt export and gkt verify prove what a device trains with.
        export_bundle(options, Path(spec["folder"], name), verify=False)


if __name__ == "__main__":
    main()
