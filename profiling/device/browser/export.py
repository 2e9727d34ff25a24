"""Exports the bundle that is trained, in a process of its own: it takes torch."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gkt_core.bundle.manifest import PORTABLE
from profiling.frame.measuring.fresh_process import answer


def export(spec: Mapping[str, Any]) -> None:
    """Export the network ``edge_network`` into ``folder``."""
    from edge_export import ExportOptions, export_bundle  # noqa: PLC0415 - torch and onnx

    warnings.simplefilter("ignore")
    options = ExportOptions(
        edge_network=spec["edge_network"],
        engines=(PORTABLE,),
        num_classes=spec["num_classes"],
        image_size=spec["image_size"],
    )
    # It is timed and thrown away; gkt export and gkt verify prove what a device trains with.
    export_bundle(options, Path(spec["folder"]), verify="none")


if __name__ == "__main__":
    answer(export)
