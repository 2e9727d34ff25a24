"""ONNX Runtime's training artifacts from a training graph, with what they get wrong put right.

Three things, each measured (docs/adr/0002): the eval graph of a network with BatchNorm does not load at
opset 14 and above; the AdamW block computes Hugging Face's variant (epsilon before bias correction)
unless told otherwise; the generator logs hundreds of lines to stderr.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx

from edge_export.training_graph import use_running_statistics
from gkt_core.errors import ConfigError
from gkt_core.manifest import EVAL_MODEL, OPTIMIZER_MODEL, TRAINING_MODEL

_FROZEN_SUFFIXES = (".running_mean", ".running_var")
ADAM_SETTINGS = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0}


def write_ort_artifacts(model: onnx.ModelProto, optimizer: str, out: Path) -> dict[str, float]:
    """Write training, eval and optimizer model, checkpoint and nominal checkpoint.

    Args:
        model: A training graph with outputs ``loss``, ``logits``, ``features``.
        optimizer: ``adam``.
        out: An existing folder.

    Returns:
        The optimizer's settings.

    Raises:
        ConfigError: The optimizer is not one that ONNX Runtime's optimizer graph can do exactly.
    """
    if optimizer != "adam":
        raise ConfigError(f"optimizer {optimizer!r} is not supported, expected adam")
    with _quiet():
        from onnxruntime.training import artifacts, onnxblock  # noqa: PLC0415 - slow, and loud on import

    names = [initializer.name for initializer in model.graph.initializer]
    frozen = [name for name in names if name.endswith(_FROZEN_SUFFIXES)]
    block = onnxblock.optim.AdamW(
        betas=(ADAM_SETTINGS["beta1"], ADAM_SETTINGS["beta2"]),
        eps=ADAM_SETTINGS["eps"],
        weight_decay=ADAM_SETTINGS["weight_decay"],
    )
    with _quiet():
        artifacts.generate_artifacts(
            model,
            requires_grad=[name for name in names if name not in frozen],
            frozen_params=frozen,
            loss=None,
            loss_input_names=["loss"],
            additional_output_names=["logits", "features"],
            optimizer=block,
            artifact_directory=out,
            nominal_checkpoint=True,
        )
    _mend_eval_model(out / EVAL_MODEL)
    _mend_optimizer(out / OPTIMIZER_MODEL)
    onnx.checker.check_model(onnx.load(out / EVAL_MODEL), full_check=False)
    if not (out / TRAINING_MODEL).is_file():
        raise ConfigError("onnxruntime wrote no training model")
    return dict(ADAM_SETTINGS)


def _mend_eval_model(path: Path) -> None:
    model = onnx.load(path)
    use_running_statistics(model)
    onnx.save(model, path)


def _mend_optimizer(path: Path) -> None:
    """Set AdamW to PyTorch's order: epsilon is added after bias correction."""
    model = onnx.load(path)
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "adam_mode":
                attribute.i = 0
    onnx.save(model, path)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the generator's log off stderr; show it when the generator fails."""
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.WARNING)
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(saved, 2)
            log.seek(0)
            sys.stderr.write(log.read().decode(errors="replace")[-4000:])
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            logging.getLogger().setLevel(level)
