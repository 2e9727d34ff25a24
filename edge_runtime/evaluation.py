"""Accuracy of an exported model on a test set, and training alone for comparison."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_runtime.engines.base import open_engine
from gkt_core.bundle.manifest import Bundle
from gkt_core.bundle.onnx_runtime import cpu_session, session_options
from gkt_core.config.run_config import RunConfig
from gkt_core.data.augment import to_float_nchw
from gkt_core.data.private_data import PrivateData, Samples
from gkt_core.errors import ArtifactError, DatasetError
from gkt_core.rounds.client_part import ClientPart
from gkt_core.rounds.client_round import client_update

_BATCH = 128


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Top-1 accuracy (0..1) on ``num_examples`` samples."""

    accuracy: float
    num_examples: int


def evaluate_model(path: Path, test: Samples, *, num_threads: int) -> Accuracy:
    """Run an inference model over a test set with ONNX Runtime.

    Args:
        path: Takes ``images [N, 3, S, S] float32`` in 0..1, gives ``logits [N, C]``.
        test: The test set.
        num_threads: CPU threads.

    Raises:
        ArtifactError: The model does not load, or takes other images.
    """
    try:
        session = cpu_session(path, session_options(num_threads))
        return _accuracy(test, lambda images: session.run(["logits"], {"images": images})[0], str(path))
    except ArtifactError:
        raise
    # ONNX Runtime's exceptions have no common base of their own.
    except Exception as error:
        raise ArtifactError(f"{path} is no model for this test set: {str(error)[:300]}") from error


def _accuracy(
    test: Samples, logits_of: Callable[[NDArray[np.float32]], NDArray[np.float32]], owner: str
) -> Accuracy:
    num_right = 0
    for begin in range(0, len(test), _BATCH):
        logits = logits_of(to_float_nchw(test.images[begin : begin + _BATCH]))
        if not np.isfinite(logits).all():
            raise ArtifactError(f"{owner} gives NaN: is it a template that was not filled?")
        num_right += int((logits.argmax(axis=1) == test.labels[begin : begin + _BATCH]).sum())
    return Accuracy(num_right / len(test), len(test))


def train_alone(
    bundle: Bundle,
    data: PrivateData,
    test: Samples,
    config: RunConfig,
    *,
    client_id: str,
    num_threads: int,
) -> Accuracy:
    """Train the edge network on one device's data alone: what the device would have without the others.

    It sees the same views in the same order as in a run of this config, without a teacher.

    Args:
        bundle: The artifacts.
        data: The device's data.
        test: Where the accuracy is measured.
        config: Hyper-parameters.
        client_id: The device, for its views.
        num_threads: CPU threads.

    Raises:
        DatasetError: The test set has other images than the artifacts.
    """
    if test.images.shape[1] != bundle.manifest.image_size:
        raise DatasetError(
            f"the test set has images of {test.images.shape[1]} px, "
            f"the artifacts take {bundle.manifest.image_size} px"
        )
    part = ClientPart(client_id, data, config, bundle.manifest.num_classes)
    engine = open_engine(bundle, checkpoint=None, num_threads=num_threads, learning_rate=config.edge_lr)
    for round_num in range(1, config.rounds + 1):
        client_update(engine, part, None, round_num)
    return _accuracy(test, lambda images: engine.predict(images)[1], f"{client_id}'s network")
