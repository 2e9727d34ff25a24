"""Accuracy of a model on a test set, and whether what a server gave is one at all."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gkt_core.bundle.manifest import Manifest
from gkt_core.bundle.memory import images_at_once
from gkt_core.bundle.model_identity import COMBINED, identity_of_run
from gkt_core.bundle.onnx_runtime import cpu_session, is_out_of_memory, session_options
from gkt_core.data.augment import to_float_nchw
from gkt_core.data.private_data import Samples
from gkt_core.errors import ArtifactError, UnsafeModelError
from gkt_core.onnx_files.combined import read_combined_model
from gkt_core.onnx_files.judging import check_model
from gkt_core.onnx_files.metadata import with_metadata
from gkt_core.onnx_files.operators import STANDARD
from gkt_core.printable import printable

AroundStep = Callable[[], contextlib.AbstractContextManager[None]]

_MOST_AT_ONCE = 128
# Of a device: enough to tell a network from none, in batches that take less memory than training.
_MOST_TRIED, _FEW = 1000, 8


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
        UnsafeModelError: It would do more than arithmetic; it is not opened.
    """
    return _measured(read_combined_model(path), test, str(path), num_threads=num_threads)


def try_model(
    data: bytes,
    validation: Samples,
    num_classes: int,
    *,
    num_threads: int,
    around_step: AroundStep = contextlib.nullcontext,
) -> Accuracy:
    """Judge the combined model of a run, open it and run it over a device's validation images.

    Args:
        data: The model, filled.
        validation: Of the device; the first thousand are looked at.
        num_classes: Of the run.
        num_threads: CPU threads.
        around_step: Gives what stands around each batch.

    Raises:
        UnsafeModelError: It is none, or gives no numbers.
    """
    name = "the trained network that the server gave"
    num = min(len(validation), _MOST_TRIED)
    tried = Samples(validation.images[:num], validation.labels[:num], validation.sample_ids[:num])
    try:
        check_model(data, name, STANDARD)
        return _measured(
            data,
            tried,
            name,
            num_threads=num_threads,
            num_classes=num_classes,
            at_once=_FEW,
            around_step=around_step,
        )
    except ArtifactError as error:
        raise UnsafeModelError(
            f"{error}. Nothing was written; the state folder is as it was: give the same command again when "
            "the server has a model"
        ) from error


def named_model(
    model: bytes, template: bytes, manifest: Manifest, measured: Accuracy, run_id: str, rounds: int
) -> bytes:
    """Write into a device's combined model what it is and which run it is of.

    Args:
        model: The server's template with the device's extractor.
        template: As the server sent it.
        manifest: Of the run's bundle.
        measured: On the device's own validation samples.
        run_id: Of the run.
        rounds: Until which the device has trained.
    """
    said = identity_of_run(
        manifest,
        COMBINED,
        run_id=run_id,
        rounds=rounds,
        validation_accuracy=measured.accuracy,
        sources={"server": hashlib.sha256(template).hexdigest()},
    )
    return with_metadata(model, said.metadata())


def _measured(
    data: bytes,
    test: Samples,
    name: str,
    *,
    num_threads: int,
    num_classes: int | None = None,
    at_once: int = _MOST_AT_ONCE,
    around_step: AroundStep = contextlib.nullcontext,
) -> Accuracy:
    try:
        session = cpu_session(data, session_options(num_threads))

        def logits_of(images: NDArray[np.float32]) -> NDArray[np.float32]:
            with around_step():
                logits: NDArray[np.float32] = session.run(["logits"], {"images": images})[0]
            wanted = (len(images), logits.shape[-1] if num_classes is None else num_classes)
            if logits.shape != wanted:
                raise ArtifactError(
                    f"{name} gives logits of shape {list(logits.shape)}, expected {list(wanted)}"
                )
            return logits

        return accuracy_of(test, logits_of, name, at_once)
    except ArtifactError:
        raise
    # ONNX Runtime's exceptions have no common base of their own.
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise ArtifactError(f"{name} is no model for this test set: {printable(str(error))[:300]}") from error


def accuracy_of(
    test: Samples,
    logits_of: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    owner: str,
    at_once: int = _MOST_AT_ONCE,
) -> Accuracy:
    """Measure top-1 accuracy.

    Args:
        test: The samples.
        logits_of: Gives logits ``[N, C]`` for images ``[N, 3, S, S] float32`` in 0..1.
        owner: Of the logits, for errors.
        at_once: Images in a batch, at most; fewer where they are large.

    Raises:
        ArtifactError: A logit is no finite number.
    """
    num_right, at_once = 0, min(at_once, images_at_once(test.images.shape[1]))
    for begin in range(0, len(test), at_once):
        logits = logits_of(to_float_nchw(test.images[begin : begin + at_once]))
        if not np.isfinite(logits).all():
            raise ArtifactError(f"{owner} gives NaN: is it a template that was not filled?")
        num_right += int((logits.argmax(axis=1) == test.labels[begin : begin + at_once]).sum())
    return Accuracy(num_right / len(test), len(test))
