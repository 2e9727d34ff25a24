"""One picture, of whatever kind a camera or a program writes, into square RGB pixels."""

from __future__ import annotations

import functools
import importlib
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gkt_core.data.reading.unknown_files import kind_of_unknown
from gkt_core.errors import needs

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

HEIF_SUFFIXES = (".heic", ".heif", ".hif")
IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp", ".avif"),
    *(".ppm", ".pgm", ".tif", ".tiff", *HEIF_SUFFIXES),
)
FITS = ("crop", "pad", "stretch")
_FIT_WORDS = {
    "crop": "not square: cut to the middle square (--fit crop; pad and stretch keep everything)",
    "pad": "not square: black added to make it square (--fit pad)",
    "stretch": "not square: stretched to a square (--fit stretch)",
}
TURNED = "turned upright, as the camera says (EXIF)"
ON_WHITE = "transparent: laid on white"
_FROM_16_BITS = "16 bits a channel: scaled to 8"
_DEEPEST = 65535


class UnreadableImageError(Exception):
    """A picture cannot be read; the message is the reason, and the same for all files of the kind."""


@dataclass(frozen=True, slots=True)
class ReadImage:
    """A picture as it is trained on.

    Attributes:
        pixels: ``[S, S, 3] uint8``.
        changes: What was done to it, in words that are the same for all pictures of the kind.
    """

    pixels: NDArray[np.uint8]
    changes: tuple[str, ...]


def read_image(source: Any, image_size: int, fit: str = "crop") -> ReadImage:
    """Read a picture: upright, without transparency, 8 bits a channel, square.

    Args:
        source: The path of a file of any format of :data:`IMAGE_SUFFIXES`, such a file that is open, or a
            picture of Pillow's.
        image_size: Pixels of each side.
        fit: ``crop`` to the middle, ``pad`` with black, or ``stretch``.

    Raises:
        UnreadableImageError: It is damaged, or of a kind whose meaning is not certain.
        MissingExtraError: Pillow is not installed.
    """
    with needs("data", "Pillow"):
        from PIL import Image  # noqa: PLC0415 - an extra
    if isinstance(source, Image.Image):
        with _reasons_named(source):
            return _converted(source, image_size, fit)
    # Whatever a picture is called: phones call HEIC .jpg, and JPEG .heic, as well.
    can_read_heif()
    with _reasons_named(source), Image.open(source) as opened:
        return _converted(opened, image_size, fit)


@functools.cache
def can_read_heif() -> bool:
    """Say whether HEIC can be read here: pillow-heif is a plug-in of Pillow, not for every machine."""
    try:
        importlib.import_module("pillow_heif").register_heif_opener()
    except ImportError:
        return False
    return True


@contextmanager
def _reasons_named(source: Any) -> Iterator[None]:
    """Turn what Pillow raises for files that are none, or damaged, into one error."""
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415 - an extra

    try:
        # Pillow warns of what we count or refuse: large pictures, odd EXIF, palettes with transparency.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except UnidentifiedImageError as error:
        kind = kind_of_unknown(source, can_read_heif=can_read_heif())
        raise UnreadableImageError(kind) from error
    except Image.DecompressionBombError as error:
        raise UnreadableImageError(f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels") from error
    except PermissionError as error:
        raise UnreadableImageError("may not be read") from error
    except FileNotFoundError as error:
        raise UnreadableImageError("there is no such file") from error
    except IsADirectoryError as error:
        raise UnreadableImageError("a folder: give the photos in it") from error
    except (UnreadableImageError, MemoryError):
        raise
    # Decoders raise whatever happens in a damaged file: TypeError for TIFF, RuntimeError for AVIF and HEIC.
    except Exception as error:
        raise UnreadableImageError("damaged or cut short") from error


def _converted(opened: Picture, image_size: int, fit: str) -> ReadImage:
    changes: list[str] = []
    # A second view beside the picture (MPO) is how phones store depth; that is no change to tell.
    if getattr(opened, "n_frames", 1) > 1 and opened.format not in ("MPO", "HEIF"):
        changes.append("more than one frame: the first one taken")
    opened.load()
    picture = _upright(opened, changes)
    picture = _rgb(picture, opened.format or "", changes)
    return ReadImage(_square(picture, image_size, fit, changes), tuple(changes))


def _upright(picture: Picture, changes: list[str]) -> Picture:
    from PIL import ExifTags, ImageOps  # noqa: PLC0415 - an extra

    try:
        orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
        turned: Picture = ImageOps.exif_transpose(picture)
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, struct.error):
        # What says how the camera was held is damaged; the picture is not.
        return picture
    if orientation in range(2, 9):
        changes.append(TURNED)
    return turned


def _rgb(picture: Picture, file_format: str, changes: list[str]) -> Picture:
    from PIL import Image  # noqa: PLC0415 - an extra

    mode = picture.mode
    if mode.startswith(("I", "F")):
        return _from_deep(picture, file_format, changes)
    if mode == "LAB":
        raise UnreadableImageError("colours in LAB: save it as RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        if picture.getchannel("A").getextrema() != (255, 255):
            changes.append(ON_WHITE)
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    words = {"CMYK": "CMYK: to RGB", "P": "a palette: to RGB", "PA": "a palette: to RGB", "L": "grey: to RGB"}
    words |= {"LA": "grey: to RGB", "1": "black and white: to RGB"}
    if mode in words:
        changes.append(words[mode])
    return picture.convert("RGB")


def _from_deep(picture: Picture, file_format: str, changes: list[str]) -> Picture:
    """Scale grey of 16 bits; Pillow itself would turn all but the darkest pixels white."""
    from PIL import Image  # noqa: PLC0415 - an extra

    # What Pillow reads from PNG and PPM as 32 bits has 16.
    is_16_bits = picture.mode.startswith("I;16") or (picture.mode == "I" and file_format in ("PNG", "PPM"))
    values: NDArray[Any] = np.asarray(picture)
    if not is_16_bits or values.min() < 0 or values.max() > _DEEPEST:
        raise UnreadableImageError(
            f"more than 16 bits a channel ({picture.mode}), of unknown range: save it with 8 or 16"
        )
    changes.append(_FROM_16_BITS)
    return Image.fromarray(to_8_bits(values)).convert("RGB")


def to_8_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Scale 0..65535 to 0..255, rounded."""
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _square(picture: Picture, image_size: int, fit: str, changes: list[str]) -> NDArray[np.uint8]:
    changes += scaling(*picture.size, image_size, fit)
    return np.asarray(fitted(picture, image_size, fit), dtype=np.uint8)


def scaling(width: int, height: int, image_size: int, fit: str) -> list[str]:
    """Say what is worth telling of a picture's way to a square: photos are larger, as a rule.

    Args:
        width: In pixels.
        height: In pixels.
        image_size: Pixels of each side of the square.
        fit: One of :data:`FITS`.
    """
    words = [_FIT_WORDS[fit]] if width != height else []
    if max(width, height) < image_size:
        words.append(f"smaller than {image_size} px: enlarged")
    return words


def fitted(picture: Picture, image_size: int, fit: str) -> Picture:
    """Scale a picture to a square.

    Args:
        picture: In RGB.
        image_size: Pixels of each side.
        fit: One of :data:`FITS`.
    """
    from PIL import Image  # noqa: PLC0415 - an extra

    size = (image_size, image_size)
    if picture.size == size:
        return picture
    width, height = picture.size
    if fit == "crop":
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        box = (left, top, left + side, top + side)
        return picture.resize(size, Image.Resampling.BILINEAR, box=box)
    if fit == "pad":
        side = max(width, height)
        # Of a line, one pixel is left.
        inner = (max(1, round(image_size * width / side)), max(1, round(image_size * height / side)))
        small = picture.resize(inner, Image.Resampling.BILINEAR)
        padded = Image.new("RGB", size)
        padded.paste(small, ((image_size - inner[0]) // 2, (image_size - inner[1]) // 2))
        return padded
    return picture.resize(size, Image.Resampling.BILINEAR)


def fitted_array(images: NDArray[np.uint8], image_size: int, fit: str = "crop") -> NDArray[np.uint8]:
    """Scale arrays to squares; needs Pillow only where there is something to do.

    Args:
        images: ``[N, H, W, 3] uint8``.
        image_size: Pixels of each side.
        fit: One of :data:`FITS`.

    Returns:
        ``[N, S, S, 3] uint8``.
    """
    if images.shape[1:3] == (image_size, image_size):
        return images
    if not len(images):
        return np.zeros((0, image_size, image_size, 3), np.uint8)
    with needs("data", "Pillow"):
        from PIL import Image  # noqa: PLC0415 - an extra
    return np.stack([np.asarray(fitted(Image.fromarray(image), image_size, fit)) for image in images])
