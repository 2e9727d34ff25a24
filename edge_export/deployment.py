"""The combined model for production: fp32 and int8, measured, whole or in two halves."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import logging
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edge_export.onnx_files import save_model
from gkt_core.bundle.model_identity import COMBINED, EXTRACTOR, SERVER, read_identity
from gkt_core.bundle.onnx_runtime import (
    cpu_session,
    onnxruntime_module,
    optimising_options,
    session_options,
    standing_in,
)
from gkt_core.bundle.template import SERVER_PREFIX
from gkt_core.data.augment import to_float_nchw
from gkt_core.data.private_data import Samples
from gkt_core.errors import ArtifactError
from gkt_core.files import write_atomically
from gkt_core.onnx_files.combined import read_combined_model
from gkt_core.onnx_files.metadata import metadata_in, with_metadata

_BATCH = 64
_LATENCY_SECONDS, _LEAST_RUNS = 1.0, 20
_HALVES = {"extractor.onnx": EXTRACTOR, "server.onnx": SERVER}


@dataclass(frozen=True, slots=True)
class Measured:
    """One deployed file.

    Attributes:
        file: Its name.
        num_bytes: Its size.
        accuracy: Top-1 on the test set, 0..1; None where it was not measured.
        latency_ms: Median time of one image, one thread; None likewise.
    """

    file: str
    num_bytes: int
    accuracy: float | None = None
    latency_ms: float | None = None


def fold(model: Path, out: Path) -> None:
    """Write a model with batch norm folded into the convolutions, as ONNX Runtime would when loading it.

    Raises:
        ArtifactError: The model does not load.
    """
    options = optimising_options(out)
    try:
        cpu_session(read_combined_model(model), options)
    except ArtifactError:
        raise
    # ONNX Runtime's exceptions have no common base of their own.
    except Exception as error:
        raise ArtifactError(
            f"{model} cannot be loaded: {str(error)[:300]}: give model.onnx of gkt edge run"
        ) from error


def quantise(model: Path, calibration: Samples, out: Path) -> None:
    """Write an int8 model of an fp32 one, folded: weights by channel (QDQ).

    Ranges of activations are taken from the calibration images: validation images, not test ones.
    """
    quantization = quantiser()
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
            warnings.simplefilter("ignore")
            prepared = Path(folder) / "prepared.onnx"
            save_model(onnx.shape_inference.infer_shapes(onnx.load(model)), prepared)
            quantization.quantize_static(
                str(prepared),
                str(out),
                _Calibration(calibration),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                # 8-bit products of two saturate on x86 without VNNI.
                reduce_range=True,
            )
    finally:
        logging.getLogger().setLevel(level)


def quantiser() -> Any:
    """ONNX Runtime's module ``quantization``, without torch, which it would import wherever it is installed.

    That takes seconds, and on a machine with CUDA's files but no GPU torch warns on stderr.
    """
    onnxruntime_module()
    with standing_in({} if "torch" in sys.modules else {"torch": None}):
        return importlib.import_module("onnxruntime.quantization")


class _Calibration:
    """What onnxruntime's quantiser reads images from."""

    def __init__(self, samples: Samples) -> None:
        self._batches = _batches(samples)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch[0]}

    def __iter__(self) -> _Calibration:
        return self

    def __next__(self) -> dict[str, NDArray[np.float32]]:
        batch = self.get_next()
        if batch is None:
            raise StopIteration
        return batch


def split(model: Path, extractor: Path, server: Path) -> None:
    """Cut a combined model where features leave the device.

    The model must not be folded: its weights still have their names. The new files map ``images`` to
    ``features``, and ``features`` to ``logits``.

    Raises:
        ArtifactError: There is no single tensor that the server's half begins from.
    """
    loaded = onnx.shape_inference.infer_shapes(onnx.load(model))
    after = {weight.name for weight in loaded.graph.initializer if weight.name.startswith(SERVER_PREFIX)}
    constants = {weight.name for weight in loaded.graph.initializer}
    constants |= {output for node in loaded.graph.node if not node.input for output in node.output}
    frontier: set[str] = set()
    for node in loaded.graph.node:
        if after & set(node.input):
            frontier |= {name for name in node.input if name and name not in after | constants}
            after |= set(node.output)
    if len(frontier) != 1:
        raise ArtifactError(
            f"{model} cannot be cut: {len(frontier)} tensors lead from extractor to server network, "
            "expected one: give model.onnx of gkt edge run"
        )
    (features,) = frontier
    extractors = onnx.utils.Extractor(loaded)
    for path, inputs, outputs in (extractor, ["images"], [features]), (server, [features], ["logits"]):
        half = extractors.extract_model(inputs, outputs)
        # The names of the classes: what is cut out comes without metadata.
        half.metadata_props.extend(loaded.metadata_props)
        _rename(half, features, "features")
        onnx.checker.check_model(half)
        save_model(half, path)


def measure(path: Path, test: Samples) -> Measured:
    """Accuracy on a test set and the latency of one image, one thread."""
    session = cpu_session(path, session_options())
    num_right = 0
    for images, labels in _batches(test):
        (logits,) = session.run(["logits"], {"images": images})
        num_right += int((logits.argmax(axis=1) == labels).sum())
    image = to_float_nchw(test.images[:1])
    times: list[float] = []
    while len(times) < _LEAST_RUNS or sum(times) < _LATENCY_SECONDS:
        started = time.perf_counter()
        session.run(["logits"], {"images": image})
        times.append(time.perf_counter() - started)
    latency_ms = 1e3 * statistics.median(times)
    return Measured(path.name, path.stat().st_size, num_right / len(test), latency_ms)


def identified(model: Path, folder: Path, measured: list[Measured]) -> list[Measured]:
    """Let deployed files say of themselves what the model says, and what was measured.

    Of a model that says nothing they say nothing.

    Args:
        model: What they were made of.
        folder: Where they are.
        measured: The files.

    Returns:
        The same with the sizes that they have now.
    """
    data = model.read_bytes()
    whole = read_identity(metadata_in(data), str(model))
    if whole is None:
        return measured
    sources = {**whole.sources, "model": hashlib.sha256(data).hexdigest()}
    told = []
    for each in measured:
        path = folder / each.file
        own = dataclasses.replace(
            whole,
            holds=_HALVES.get(each.file, COMBINED),
            precision="int8" if "int8" in each.file else "fp32",
            # A half by itself is right about nothing, and quantising changes what was known.
            validation_accuracy=whole.validation_accuracy if each.file == "model_fp32.onnx" else None,
            test_accuracy=each.accuracy,
            sources=sources,
        )
        write_atomically(path, with_metadata(path.read_bytes(), own.metadata()))
        told.append(dataclasses.replace(each, num_bytes=path.stat().st_size))
    return told


def _batches(samples: Samples) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    for begin in range(0, len(samples), _BATCH):
        rows = slice(begin, begin + _BATCH)
        yield to_float_nchw(samples.images[rows]), samples.labels[rows]


def _rename(model: Any, old: str, new: str) -> None:
    for node in model.graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new
    for value in (*model.graph.input, *model.graph.output):
        if value.name == old:
            value.name = new
