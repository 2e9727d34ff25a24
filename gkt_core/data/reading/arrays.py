"""Arrays as people have them: converted where the meaning is certain, else refused with what mends them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gkt_core.data.reading.images import ON_WHITE, fitted_array, scaling
from gkt_core.data.reading.report import ReadingReport
from gkt_core.errors import DatasetError

_CHANNELS = (1, 3, 4)
MAX_CLASSES = 100_000


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels as numbers.

    Attributes:
        numbers: ``[N] int64``.
        names: One name a class, where the labels had names or a width; else empty.
        are_named: Whether these are names, and not numbers up to a width.
    """

    numbers: NDArray[np.int64]
    names: tuple[str, ...] = ()
    are_named: bool = False


def to_images(
    owner: str, key: str, values: NDArray[Any], num: int, report: ReadingReport
) -> NDArray[np.uint8]:
    """Bring images to ``[N, H, W, 3] uint8``.

    Args:
        owner: The file, for messages.
        key: Name of the array, for messages and for the line that mends it.
        values: Grey, RGB or RGBA, channels last or first; uint8, or what is certainly the same.
        num: How many labels there are.
        report: Told what was converted.

    Raises:
        DatasetError: Says what the array is, what is expected, and the line that makes it so.
    """
    images = _channels_last(owner, key, values, num, report)
    images = _bytes(owner, key, images, report)
    channels = images.shape[3]
    if channels == 1:
        report.converted[f"{key}: grey, repeated as RGB"] += len(images)
        return np.repeat(images, 3, axis=3)
    if channels == 4:
        report.converted[f"{key}: RGBA, {ON_WHITE}"] += len(images)
        return _on_white(images)
    return np.ascontiguousarray(images)


def to_size(
    key: str, images: NDArray[np.uint8], image_size: int, fit: str, report: ReadingReport
) -> NDArray[np.uint8]:
    """Scale images to squares, which is told: arrays are mostly of the size that their owner wants.

    Args:
        key: Name of the array.
        images: ``[N, H, W, 3] uint8``.
        image_size: Pixels of each side.
        fit: One of :data:`gkt_core.data.reading.images.FITS`.
        report: Told what was done.

    Returns:
        ``[N, S, S, 3] uint8``.
    """
    height, width = images.shape[1:3]
    if len(images) and (height, width) != (image_size, image_size):
        words = scaling(width, height, image_size, fit)
        if max(height, width) >= image_size:
            words.append(f"of {height} x {width} px: scaled to {image_size} px")
        for each in words:
            report.converted[f"{key}: {each}"] += len(images)
    return fitted_array(images, image_size, fit)


def _refuse(owner: str, what: str, remedy: str) -> DatasetError:
    return DatasetError(f"{owner}: {what}: {remedy}")


def _channels_last(
    owner: str, key: str, values: NDArray[Any], num: int, report: ReadingReport
) -> NDArray[Any]:
    shape = list(values.shape)
    expected = f"{key} is {shape}, expected [N, S, S, 3]"
    if values.ndim == 3 and min(shape[1:], default=0) >= 1:
        return values[..., None]
    if values.ndim == 4:
        last, first = shape[3] in _CHANNELS, shape[1] in _CHANNELS
        if last:
            return values
        if first and num == len(values):
            report.converted[f"{key}: channels first, moved to the end"] += len(values)
            return values.transpose(0, 2, 3, 1)
        if shape[3] == num and shape[2] in _CHANNELS:
            raise _refuse(owner, expected, f"{key} = {key}.transpose(3, 0, 1, 2)")
        if shape[3] == 2:
            raise _refuse(owner, expected, f"{key} = {key}[..., :1]   # the first channel as grey")
    if values.ndim == 2 and shape[1] > 0:
        raise _refuse(owner, expected, _unflatten(key, shape[1]))
    raise DatasetError(f"{owner}: {expected}")


def _unflatten(key: str, width: int) -> str:
    for channels in (3, 1):
        side = round((width / channels) ** 0.5)
        if channels * side * side == width:
            if channels == 1:
                return f"{key} = {key}.reshape(-1, {side}, {side})"
            return (
                f"{key} = {key}.reshape(-1, 3, {side}, {side})   # channels first, as CIFAR's own files; or "
                f"{key}.reshape(-1, {side}, {side}, 3)"
            )
    return f"{key} = {key}.reshape(-1, height, width, channels)   # with your own numbers"


def _bytes(owner: str, key: str, images: NDArray[Any], report: ReadingReport) -> NDArray[np.uint8]:
    kind = images.dtype.kind
    if images.dtype == np.uint8:
        return images
    if kind not in "iufb":
        raise DatasetError(f"{owner}: {key} is {images.dtype}, expected uint8 (0 to 255)")
    if images.size == 0:
        return images.astype(np.uint8)
    if kind == "b":
        report.converted[f"{key}: True and False, as white and black"] += len(images)
        return images.astype(np.uint8) * np.uint8(255)
    if kind == "f" and not np.isfinite(images).all():
        axes = tuple(range(1, images.ndim))
        bad = int((~np.isfinite(images).all(axis=axes)).sum())
        labels = key.replace("x_", "y_") if key.startswith("x_") else "labels"
        what = (
            f"{key} is {images.dtype}, with NaN or infinity in {bad} of {len(images)} images, expected uint8"
        )
        if 2 * bad > len(images):
            # Without them, nothing or little is left.
            raise _refuse(
                owner, what, f"{key} = np.nan_to_num({key}, nan=0, posinf=0, neginf=0)   # if 0 is black"
            )
        raise _refuse(
            owner,
            what,
            f"good = np.isfinite({key}).reshape(len({key}), -1).all(axis=1); "
            f"{key}, {labels} = {key}[good], {labels}[good]",
        )
    low, high = float(images.min()), float(images.max())
    whole = kind != "f" or bool((images == np.rint(images)).all())
    if kind == "f" and low >= 0 and high <= 1:
        report.converted[f"{key}: {images.dtype} in 0 to 1, times 255"] += len(images)
        scaled: NDArray[np.uint8] = np.rint(images * 255).astype(np.uint8)
        return scaled
    if whole and low >= 0 and high <= 255 and (high > 1 or high == 0):
        report.converted[f"{key}: {images.dtype} in 0 to 255, as uint8"] += len(images)
        return images.astype(np.uint8)
    what = f"{key} is {images.dtype} from {low:g} to {high:g}, expected uint8 (0 to 255)"
    raise _refuse(owner, what, _rescale(key, low, high, whole))


def _rescale(key: str, low: float, high: float, whole: bool) -> str:
    to_bytes = '.astype("uint8")'
    if low >= 0 and high <= 1:
        return f"{key} = ({key} * 255){to_bytes}   # if 1 is white"
    if low >= 0 and high <= 255:
        return f"{key} = {key}.round(){to_bytes}   # if 255 is white"
    if low >= 0 and whole and high <= 65535:
        return f"{key} = ({key} / 257).round(){to_bytes}   # if 65535 is white (12 bits: / 16.06)"
    if low >= -1 and high <= 1:
        return f"{key} = (({key} + 1) * 127.5).round(){to_bytes}   # if -1 is black and 1 white"
    return (
        f"{key} = (({key} * std + mean) * 255).round().clip(0, 255){to_bytes}   "
        "# with the mean and std that it was normalised with"
    )


def _on_white(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    alpha = images[..., 3:].astype(np.uint32)
    blended = images[..., :3] * alpha + 255 * (255 - alpha)
    return ((blended + 127) // 255).astype(np.uint8)


def to_labels(owner: str, key: str, values: NDArray[Any], num: int, report: ReadingReport) -> Labels:
    """Bring labels to ``[N] int64``.

    Args:
        owner: The file, for messages.
        key: Name of the array.
        values: Integers ``[N]`` or ``[N, 1]``, whole floats, True and False, one-hot ``[N, C]``, or names.
        num: How many images there are.
        report: Told what was converted.

    Raises:
        DatasetError: Says what the array is, what is expected, and the line that makes it so.
    """
    shape, kind = list(values.shape), values.dtype.kind
    what = f"{key} is {values.dtype} {shape}, expected integers [{num}]"
    if len(values.shape) == 0 or len(values) != num:
        raise DatasetError(f"{owner}: {what}")
    if values.ndim == 2 and shape[1] == 1:
        report.converted[f"{key}: [N, 1] as [N]"] += num
        values = values[:, 0]
    if values.ndim == 2 and kind in "iufb":
        if not (np.isin(values, (0, 1)).all() and (values.sum(axis=1) == 1).all()):
            raise _refuse(owner, what, f"{key} = {key}.argmax(axis=1)   # the likeliest class of each")
        report.converted[f"{key}: one-hot, as numbers of classes"] += num
        return Labels(values.argmax(axis=1).astype(np.int64), tuple(map(str, range(shape[1]))))
    if values.ndim != 1:
        raise DatasetError(f"{owner}: {what}")
    if kind in "US":
        return _named_labels(owner, key, values, report)
    if kind == "b":
        report.converted[f"{key}: True and False, as classes 1 and 0"] += num
        return Labels(values.astype(np.int64), ("False", "True"), True)
    if kind == "f":
        if not (np.isfinite(values).all() and (values == np.rint(values)).all()):
            raise _refuse(owner, what, f'{key} = {key}.round().astype("int64")   # if that is what they mean')
        report.converted[f"{key}: {values.dtype}, as integers"] += num
        values = values.astype(np.int64)
    if values.dtype.kind not in "iu":
        raise DatasetError(f"{owner}: {what}")
    if num and int(values.max()) >= MAX_CLASSES:
        raise DatasetError(
            f"{owner}: {key} holds the label {int(values.max())}, expected below {MAX_CLASSES}: "
            f"{key} = np.unique({key}, return_inverse=True)[1]   # if the others are no classes"
        )
    return Labels(values.astype(np.int64))


def _named_labels(owner: str, key: str, values: NDArray[Any], report: ReadingReport) -> Labels:
    try:
        texts = [text.decode() if isinstance(text, bytes) else str(text) for text in values.tolist()]
    except UnicodeDecodeError as error:
        raise DatasetError(f"{owner}: {key} holds names that are no text: {error}") from error
    names = sorted(set(texts), key=lambda name: (0, int(name), name) if name.isdecimal() else (1, 0, name))
    report.converted[f"{key}: names, numbered in their order"] += len(texts)
    number = {name: index for index, name in enumerate(names)}
    return Labels(np.asarray([number[text] for text in texts], dtype=np.int64), tuple(names), True)


def check_shown(owner: str, key: str, labels: NDArray[np.int64]) -> None:
    """Refuse labels that begin above 0, or leave numbers out: they may mean something else than it seems.

    Raises:
        DatasetError: Names the classes that nothing shows, the line that renumbers, and the option that takes
            them as they are.
    """
    shown = np.unique(labels)
    if not len(shown) or shown[0] < 0 or len(shown) == shown[-1] + 1:
        return
    empty = np.setdiff1d(np.arange(shown[-1] + 1), shown)
    others = key.replace("train", "test")
    both = f"{key}, {others} = {key} - 1, {others} - 1" if others != key else f"{key} = {key} - 1"
    first = ", ".join(map(str, empty[:5])) + (" and so on" if len(empty) > 5 else "")
    if len(empty) == 1 and empty[0] == 0:
        what, mend = f"the labels 1 to {shown[-1]} and no 0", f"if they count from 1, {both}"
    else:
        what = f"{len(shown)} labels from {shown[0]} to {shown[-1]}, and none of {first}"
        mend = f"if these are no classes, values = np.unique({key}); {key} = np.searchsorted(values, {key})"
        mend += f"; {others} = np.searchsorted(values, {others})" if others != key else ""
    raise DatasetError(
        f"{owner}: {key} holds {what}: {mend}; if there are classes that this data lacks, "
        "--allow-empty-classes, or class_names in the file"
    )
