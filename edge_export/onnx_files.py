"""Every ONNX file that is written here, in the one version of the format that all readers of it take."""

from __future__ import annotations

from pathlib import Path

import onnx

# Each onnx package writes its newest version, 1.23 the 14; ONNX Runtime 1.19.2, the last that trains, reads
# up to 10, and 1.13 (2022) up to 8: phones and boards keep old builds for long.
IR_VERSION = 8


def save_model(model: onnx.ModelProto, path: Path) -> None:
    """Write a model, whatever the installed onnx would make of its version."""
    model.ir_version = IR_VERSION
    onnx.save(model, path)


def save_again(path: Path) -> None:
    """Give a file that another package has written the version of ours."""
    save_model(onnx.load(path), path)
