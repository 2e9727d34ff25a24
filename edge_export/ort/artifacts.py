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
from typing import Any

import onnx

from edge_export.onnx_files import save_again, save_model
from edge_export.ort.training_graph import training_graph, use_running_statistics
from gkt_core.bundle.manifest import EVAL_MODEL, OPTIMIZER_MODEL, TRAINING_MODEL
from gkt_core.config.edge_optimizer import EdgeOptimizer
from gkt_core.errors import ConfigError
from gkt_core.nn import EdgeNetwork

_FROZEN_SUFFIXES = (".running_mean", ".running_var")


def write_ort_artifacts(
    network: EdgeNetwork,
    settings: EdgeOptimizer,
    out: Path,
    *,
    num_classes: int,
    image_size: int,
    temperature: float,
    leakage_penalty: float = 0.0,
) -> dict[str, Any]:
    """Write training, eval and optimizer model, checkpoint and nominal checkpoint.

    ONNX Runtime's optimizer models are AdamW and plain SGD. An L2 penalty goes into the training graph, as
    an ``objective`` beside the loss; momentum is left to the runtime, which has the gradients. The network is
    left as it was.

    Returns:
        What a runtime must do after each step, for the manifest.

    Raises:
        ConfigError: ONNX Runtime wrote no training model.
    """
    model = training_graph(
        network,
        num_classes=num_classes,
        image_size=image_size,
        temperature=temperature,
        leakage_penalty=leakage_penalty,
        weight_decay=settings.l2_penalty,
    )
    with _quiet():
        from onnxruntime.training import artifacts, onnxblock  # noqa: PLC0415 - slow, and loud on import

    names = [initializer.name for initializer in model.graph.initializer]
    frozen = [name for name in names if name.endswith(_FROZEN_SUFFIXES)]
    if settings.name == "sgd":
        block = onnxblock.optim.SGD()
    else:
        block = onnxblock.optim.AdamW(
            betas=(settings.beta1, settings.beta2),
            eps=settings.eps,
            weight_decay=settings.weight_decay - settings.l2_penalty,
        )
    minimised, *others = [value.name for value in model.graph.output]
    with _quiet():
        artifacts.generate_artifacts(
            model,
            requires_grad=[name for name in names if name not in frozen],
            frozen_params=frozen,
            loss=None,
            loss_input_names=[minimised],
            additional_output_names=others,
            optimizer=block,
            artifact_directory=out,
            nominal_checkpoint=True,
        )
    if not (out / TRAINING_MODEL).is_file():
        raise ConfigError("onnxruntime wrote no training model")
    save_again(out / TRAINING_MODEL)
    _mend_eval_model(out / EVAL_MODEL)
    _mend_optimizer(out / OPTIMIZER_MODEL)
    onnx.checker.check_model(onnx.load(out / EVAL_MODEL), full_check=False)
    does: dict[str, Any] = {"unbiased_variance": True}
    if settings.momentum:
        does |= {"momentum": settings.momentum, "nesterov": settings.nesterov}
    return does


def _mend_eval_model(path: Path) -> None:
    model = onnx.load(path)
    use_running_statistics(model)
    save_model(model, path)


def _mend_optimizer(path: Path) -> None:
    """Set AdamW to PyTorch's order: epsilon is added after bias correction."""
    model = onnx.load(path)
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "adam_mode":
                attribute.i = 0
    save_model(model, path)


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
