"""Artifacts of every network that is compared: ``python -m profiling.compared_bundles SPEC``.

FedAvg's devices would train ResNet-56 and ResNet-110 themselves. As networks of one's own, with the same
extractor and the server network as head, they export like any edge network. That happens in a process of
its own: registering is for good, and tracing takes memory that would be counted otherwise.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import warnings
from pathlib import Path

from gkt_core.errors import RunFailedError
from gkt_core.networks import FULL_NETWORKS, register_edge_network

_PREFIX = "fedavg_"
_SERVERS = {"resnet56": "resnet55", "resnet110": "resnet109"}


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
        [sys.executable, "-m", "profiling.compared_bundles", json.dumps(spec)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RunFailedError(f"exporting {', '.join(names)} failed: {done.stderr.strip()[-300:]}")
    return {name: folder / name for name in names}


def _register() -> None:
    from gkt_core.nn import build_server_network  # noqa: PLC0415 - imports torch
    from gkt_core.nn.resnet import FeatureExtractor  # noqa: PLC0415

    for name, server in _SERVERS.items():
        register_edge_network(
            _PREFIX + name,
            extractor=FeatureExtractor,
            head=functools.partial(build_server_network, server),
        )


def main() -> None:
    """Export what the first argument says."""
    from edge_export import ExportOptions, export_bundle  # noqa: PLC0415 - imports torch and onnx

    warnings.simplefilter("ignore")
    spec = json.loads(sys.argv[1])
    _register()
    for name in spec["names"]:
        options = ExportOptions(
            edge_network=_PREFIX + name if name in FULL_NETWORKS else name,
            num_classes=spec["num_classes"],
            image_size=spec["image_size"],
            temperature=spec["temperature"],
        )
        export_bundle(options, Path(spec["folder"], name))


if __name__ == "__main__":
    main()
