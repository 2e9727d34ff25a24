"""Options of the commands that are about files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from edge_export.options import Depth
from gkt_core.config.dataclass_options import option
from gkt_core.config.network_options import RegisteredNetworks
from gkt_core.config.output_path import OUTPUT_FOLDER


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportFiles:
    """What ``gkt export`` reads and where it writes.

    Attributes:
        split: partition.json of gkt data split: classes, image size and pixel statistics are taken from it.
        out: A new folder.
        depth: How far the engines are proved before the folder gets its name: 20 steps beside PyTorch (fewer
            of images above 90 px), three steps, or nothing. The manifest notes it.
    """

    split: Path | None = None
    out: Path = option(click_type=OUTPUT_FOLDER)
    depth: Depth = option("full", flag="--verify", choices=get_args(Depth))


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyOptions(RegisteredNetworks):
    """What ``gkt verify`` does.

    Attributes:
        depth: 20 steps beside PyTorch (fewer of images above 90 px), or three.
    """

    depth: Depth = option("full", flag="--verify", choices=("full", "quick"))


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployOptions:
    """Options of ``gkt deploy``.

    Attributes:
        model: model.onnx of gkt edge run.
        data: This device's file of gkt data split; its validation images calibrate int8.
        test: test.npz of gkt data split; accuracy is measured on it, nothing is chosen by it.
        out: A new folder.
        is_split: Also write extractor.onnx (images to features) and server.onnx (features to logits).
    """

    model: Path
    data: Path
    test: Path
    out: Path = option(click_type=OUTPUT_FOLDER)
    is_split: bool = option(False, flag="--split")
