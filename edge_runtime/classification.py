"""What a combined model sees in photos, read as the photos that it was trained on were."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gkt_core.bundle.manifest import MANIFEST_NAME
from gkt_core.bundle.onnx_runtime import cpu_session, session_options
from gkt_core.data.augment import to_float_nchw
from gkt_core.data.reading.images import UnreadableImageError, read_image
from gkt_core.errors import ArtifactError, DatasetError


@dataclass(frozen=True, slots=True)
class Classified:
    """One photo.

    Attributes:
        photo: Its file.
        probabilities: Of each class, by name, the likeliest first.
        changes: What was done to the photo on the way in.
    """

    photo: str
    probabilities: dict[str, float]
    changes: tuple[str, ...]


def classify(
    photos: Sequence[Path], model: Path, *, bundle: Path | None, fit: str, num_threads: int
) -> list[Classified]:
    """Classify photos with ONNX Runtime.

    Args:
        photos: Files of any kind that :mod:`gkt_core.data.reading.images` reads.
        model: A combined model: ``images [N, 3, S, S] float32`` in 0..1 to ``logits [N, C]``.
        bundle: Where the names of the classes are; by default what lies beside the model in a state folder.
        fit: What happens to photos that are not square, as when the device's file was packed.
        num_threads: CPU threads.

    Raises:
        DatasetError: A photo cannot be read.
        ArtifactError: The model does not load, or is none that takes images.
    """
    try:
        session = cpu_session(model, session_options(num_threads))
        (image_size,) = {int(side) for side in session.get_inputs()[0].shape[2:4]}
        has_both = "images" in {each.name for each in session.get_inputs()}
        has_both &= "logits" in {each.name for each in session.get_outputs()}
    # ONNX Runtime's exceptions have no common base of their own.
    except Exception as error:
        raise ArtifactError(f"{model} is no model that takes images: {str(error)[:300]}") from error
    if not has_both:
        raise ArtifactError(f"{model} is no combined model: give model.onnx of gkt edge run")
    return [_one(photo, session, image_size, fit, model, bundle) for photo in photos]


def _one(
    photo: Path, session: Any, image_size: int, fit: str, model: Path, bundle: Path | None
) -> Classified:
    try:
        read = read_image(photo, image_size, fit)
    except UnreadableImageError as error:
        raise DatasetError(f"cannot read {photo}: {error}") from error
    logits: NDArray[np.float32] = session.run(["logits"], {"images": to_float_nchw(read.pixels[None])})[0][0]
    if not np.isfinite(logits).all():
        raise ArtifactError(f"{model} gives NaN: is it a template that was not filled?")
    shifted = np.exp(logits.astype(np.float64) - float(logits.max()))
    probabilities = shifted / shifted.sum()
    names = class_names_of(model, bundle, len(logits))
    order = np.argsort(-probabilities, kind="stable")
    return Classified(str(photo), {names[i]: float(probabilities[i]) for i in order}, read.changes)


def class_names_of(model: Path, bundle: Path | None, num_classes: int) -> tuple[str, ...]:
    """Name the classes of a model, by the manifest of its bundle; by number where there is none.

    Args:
        model: The combined model.
        bundle: Folder of the bundle; by default ``bundle`` beside the model.
        num_classes: Of the model.

    Raises:
        ArtifactError: The bundle that was given has no names, or is another model's.
    """
    path = (bundle or model.parent / "bundle") / MANIFEST_NAME
    try:
        names = [str(name) for name in json.loads(path.read_text(encoding="utf-8"))["class_names"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        if bundle is not None:
            raise ArtifactError(f"{path} cannot be read: {error}: give the folder of the bundle") from error
        names = []
    if names and len(names) != num_classes:
        raise ArtifactError(
            f"{path} names {len(names)} classes, {model} has {num_classes}: it is another bundle"
        )
    if bundle is not None and not names:
        raise ArtifactError(f"{path} names no classes: export with gkt export --split")
    return tuple(names) or tuple(f"class {number}" for number in range(num_classes))
