"""What a combined model sees in photos, read as the photos that it was trained on were."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gkt_core.bundle.manifest import MANIFEST_NAME
from gkt_core.bundle.model_metadata import class_names_in
from gkt_core.bundle.onnx_runtime import cpu_session, is_out_of_memory, session_options
from gkt_core.data.augment import to_float_nchw
from gkt_core.data.reading.images import UnreadableImageError, read_image
from gkt_core.errors import ArtifactError
from gkt_core.onnx_files.combined import EXPECTED, read_combined_model
from gkt_core.printable import printable


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


@dataclass(frozen=True, slots=True)
class Unread:
    """A photo that cannot be read, and why."""

    photo: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Model:
    session: Any
    image_size: int
    class_names: tuple[str, ...]


def classify(
    photos: Sequence[Path], model: Path, *, bundle: Path | None, fit: str, num_threads: int
) -> Iterator[Classified | Unread]:
    """Classify photos with ONNX Runtime, one after the other; one that cannot be read ends nothing.

    Args:
        photos: Files of any kind that :mod:`gkt_core.data.reading.images` reads.
        model: A combined model: ``images [N, 3, S, S] float32`` in 0..1 to ``logits [N, C]``.
        bundle: Names the classes of a model that does not name them itself; by default what lies beside the
            model in a state folder.
        fit: What happens to photos that are not square, as when the device's file was packed.
        num_threads: CPU threads.

    Raises:
        ArtifactError: The model does not load, or is none that takes images.
    """
    opened = _opened(model, bundle, num_threads)
    for photo in photos:
        yield _one(photo, opened, fit, model)


def _opened(model: Path, bundle: Path | None, num_threads: int) -> _Model:
    try:
        session = cpu_session(read_combined_model(model), session_options(num_threads))
        (image_size,) = {int(side) for side in session.get_inputs()[0].shape[2:4]}
        num_classes = {each.name: int(each.shape[-1]) for each in session.get_outputs()}
        metadata = dict(session.get_modelmeta().custom_metadata_map)
    except ArtifactError:
        raise
    # ONNX Runtime's exceptions have no common base of their own.
    except Exception as error:
        raise _no_model(model, error) from error
    return _Model(session, image_size, class_names_of(model, metadata, bundle, num_classes["logits"]))


def _no_model(path: Path, error: Exception) -> ArtifactError:
    return ArtifactError(f"{path} is no model that takes images: {printable(str(error))[:300]}; {EXPECTED}")


def _one(photo: Path, model: _Model, fit: str, path: Path) -> Classified | Unread:
    try:
        read = read_image(photo, model.image_size, fit)
    except UnreadableImageError as error:
        return Unread(str(photo), str(error))
    images = to_float_nchw(read.pixels[None])
    try:
        logits: NDArray[np.float32] = model.session.run(["logits"], {"images": images})[0][0]
    # ONNX Runtime's exceptions have no common base of their own.
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise _no_model(path, error) from error
    if not np.isfinite(logits).all():
        raise ArtifactError(f"{path} gives NaN: it is a template that was not filled, or damaged; {EXPECTED}")
    shifted = np.exp(logits.astype(np.float64) - float(logits.max()))
    probabilities = shifted / shifted.sum()
    order = np.argsort(-probabilities, kind="stable")
    named = {model.class_names[index]: float(probabilities[index]) for index in order}
    return Classified(str(photo), named, read.changes)


def class_names_of(
    model: Path, metadata: Mapping[str, str], bundle: Path | None, num_classes: int
) -> tuple[str, ...]:
    """Name the classes of a model: as its metadata says, else by the manifest of a bundle, else by number.

    Args:
        model: The combined model.
        metadata: Of its file; models of earlier versions have none.
        bundle: Folder of the bundle; by default ``bundle`` beside the model.
        num_classes: Of the model.

    Raises:
        ArtifactError: The bundle that was given has no names, or is another model's.
    """
    own = class_names_in(metadata)
    if own and len(own) != num_classes:
        raise ArtifactError(f"{model} names {len(own)} classes and has {num_classes}: it was changed")
    path = (bundle or model.parent / "bundle") / MANIFEST_NAME
    if own and bundle is None:
        return own
    try:
        names = tuple(map(str, json.loads(path.read_text(encoding="utf-8"))["class_names"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        if bundle is not None:
            raise ArtifactError(f"{path} cannot be read: {error}: give the folder of the bundle") from error
        names = ()
    if names and len(names) != num_classes:
        raise ArtifactError(
            f"{path} names {len(names)} classes, {model} has {num_classes}: it is another bundle"
        )
    if own and names != own:
        raise ArtifactError(f"{path} names other classes than {model}, which names its own: leave out --for")
    if bundle is not None and not names:
        raise ArtifactError(f"{path} names no classes: export with gkt export --classes or --split")
    return names or tuple(f"class {number}" for number in range(num_classes))
