"""Accuracy of a model on a test set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gkt_core.bundle.onnx_runtime import cpu_session, session_options
from gkt_core.data.augment import to_float_nchw
from gkt_core.data.private_data import Samples
from gkt_core.errors import ArtifactError
from gkt_core.onnx_files.judging import check_model_file
from gkt_core.onnx_files.operators import DEPLOYED

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
        session = cpu_session(check_model_file(path, DEPLOYED), session_options(num_threads))
        return accuracy_of(test, lambda images: session.run(["logits"], {"images": images})[0], str(path))
    except ArtifactError:
        raise
    # ONNX Runtime's exceptions have no common base of their own.
    except Exception as error:
        raise ArtifactError(f"{path} is no model for this test set: {str(error)[:300]}") from error


def accuracy_of(
    test: Samples, logits_of: Callable[[NDArray[np.float32]], NDArray[np.float32]], owner: str
) -> Accuracy:
    """Measure top-1 accuracy.

    Args:
        test: The samples.
        logits_of: Gives logits ``[N, C]`` for images ``[N, 3, S, S] float32`` in 0..1.
        owner: Of the logits, for errors.

    Raises:
        ArtifactError: A logit is no finite number.
    """
    num_right = 0
    for begin in range(0, len(test), _BATCH):
        logits = logits_of(to_float_nchw(test.images[begin : begin + _BATCH]))
        if not np.isfinite(logits).all():
            raise ArtifactError(f"{owner} gives NaN: is it a template that was not filled?")
        num_right += int((logits.argmax(axis=1) == test.labels[begin : begin + _BATCH]).sum())
    return Accuracy(num_right / len(test), len(test))
