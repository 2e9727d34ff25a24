"""Classify features with the server's half of a deployed model, on ONNX Runtime and without PyTorch."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gkt_core.bundle.manifest import Manifest
from gkt_core.bundle.onnx_runtime import check_one_distribution, cpu_session, session_options
from gkt_core.errors import ArtifactError, MessageError

SERVER_HALF = "server.onnx"
_REMEDY = "give the folder that gkt deploy --split wrote, or its server.onnx"


class FeatureClassifier:
    """Answers features; threads may share it.

    Args:
        path: ``server.onnx`` of ``gkt deploy --split``, or its folder.

    Attributes:
        feature_shape: ``(C, H, W)`` of one sample.
        num_classes: Width of the logits.

    Raises:
        ArtifactError: It is no such file, or gives no numbers.
        MissingExtraError: No ONNX Runtime is installed.
        PackageConflictError: Two distributions of it are installed.
    """

    def __init__(self, path: Path) -> None:
        check_one_distribution()
        self._path = path / SERVER_HALF if path.is_dir() else path
        if not self._path.is_file():
            raise ArtifactError(f"there is no file {self._path}: {_REMEDY}")
        # A web server has requests enough to keep its cores busy.
        options = session_options(num_threads=1)
        try:
            self._session = cpu_session(self._path, options)
        # ONNX Runtime's exceptions have no common base of their own.
        except Exception as error:
            raise ArtifactError(f"{self._path} cannot be loaded: {str(error)[:300]}: {_REMEDY}") from error
        self.feature_shape, self.num_classes = self._shapes()
        # More at once would take memory and end no sooner.
        self._at_once = threading.BoundedSemaphore(max(1, os.cpu_count() or 1))
        if not np.isfinite(self._run(np.zeros((1, *self.feature_shape), np.float32))).all():
            raise ArtifactError(f"{self._path} gives NaN: is it made from a template that was not filled?")

    def _shapes(self) -> tuple[tuple[int, int, int], int]:
        inputs, outputs = (
            {each.name: each.shape for each in nodes}
            for nodes in (self._session.get_inputs(), self._session.get_outputs())
        )
        features, logits = inputs.get("features", []), outputs.get("logits", [])
        known = len(features) == 4 and len(logits) == 2
        if len(inputs) != 1 or not known or not all(isinstance(n, int) for n in (*features[1:], logits[1])):
            raise ArtifactError(
                f"{self._path} makes {outputs} from {inputs}, expected logits [N, classes] from features "
                f"[N, C, H, W]: {_REMEDY}"
            )
        channels, height, width = features[1:]
        return (channels, height, width), logits[1]

    def check_fits(self, manifest: Manifest) -> None:
        """Refuse a deployment of other networks than the run's.

        Raises:
            ArtifactError: Says both shapes.
        """
        expected = (manifest.feature_shape, manifest.num_classes)
        if (self.feature_shape, self.num_classes) != expected:
            raise ArtifactError(
                f"{self._path} takes features {list(self.feature_shape)} and knows {self.num_classes} "
                f"classes, the run has {list(expected[0])} and {expected[1]}: deploy a model of this run"
            )

    def logits(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Classify features.

        Args:
            features: ``[n, C, H, W] float32``.

        Returns:
            ``[n, classes] float32``, finite.

        Raises:
            MessageError: The features are so large that logits are not finite.
        """
        with self._at_once:
            logits = self._run(features)
        if not np.isfinite(logits).all():
            raise MessageError(
                "the logits of these features are not finite: send what this deployment's extractor gives"
            )
        return logits

    def _run(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        outputs: list[Any] = self._session.run(["logits"], {"features": features})
        logits: NDArray[np.float32] = outputs[0]
        return logits


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Softmax of ``[n, classes]`` logits."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))
