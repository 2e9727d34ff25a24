"""One picture of each kind that cameras and programs write, and what becomes of its pixels."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gkt_core.data.reading import images
from gkt_core.data.reading.images import (
    ON_WHITE,
    TURNED,
    ReadImage,
    UnreadableImageError,
    read_image,
    to_8_bits,
)
from gkt_core.errors import MissingExtraError

# Red above, blue below.
TWO = np.zeros((16, 16, 3), np.uint8)
TWO[:8, :, 0], TWO[8:, :, 2] = 250, 240


def read(picture: Image.Image, path: Path, **options: object) -> ReadImage:
    picture.save(path, **options)
    return read_image(path, 16)


def near(pixels: object, expected: object, within: int = 0) -> bool:
    return bool(np.abs(np.asarray(pixels).astype(int) - np.asarray(expected).astype(int)).max() <= within)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_the_camera_was_held(tmp_path: Path, orientation: int) -> None:
    scene = TWO.copy()
    scene[:8, :8] = (0, 200, 0)
    # What each orientation says that was done to the scene, undone by Pillow's own names.
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = Image.fromarray(scene)
    if orientation in undo:
        stored = stored.transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    result = read(stored, tmp_path / "a.png", exif=exif)
    assert near(result.pixels, scene)
    assert result.changes == ((TURNED,) if orientation > 1 else ())


def test_damaged_exif_is_no_reason_to_lose_a_picture(tmp_path: Path) -> None:
    result = read(Image.fromarray(TWO), tmp_path / "a.jpg", quality=95, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert result.pixels.shape == (16, 16, 3)
    assert result.changes == ()


@pytest.mark.parametrize("kind", ["RGBA", "LA", "P", "colour key"])
def test_what_lies_under_transparency_is_white(tmp_path: Path, kind: str) -> None:
    alpha = np.zeros((16, 16), np.uint8)
    alpha[:8] = 255
    picture = Image.fromarray(np.dstack([TWO, alpha]))
    options = {}
    if kind == "LA":
        picture = Image.merge("LA", (picture.convert("L"), picture.getchannel("A")))
    elif kind == "P":
        picture = picture.quantize(8, method=Image.Quantize.FASTOCTREE)
    elif kind == "colour key":
        picture, options = Image.fromarray(TWO), {"transparency": (0, 0, 240)}
    result = read(picture, tmp_path / "a.png", **options)
    assert near(result.pixels[8:], 255)
    assert not near(result.pixels[:8], 255, within=50)
    assert ON_WHITE in result.changes


def test_half_transparent_is_half_white_and_opaque_is_no_change(tmp_path: Path) -> None:
    half = np.dstack([TWO, np.full((16, 16), 128, np.uint8)])
    result = read(Image.fromarray(half), tmp_path / "a.png")
    assert near(result.pixels, TWO * (128 / 255) + 255 * (127 / 255), within=1)
    opaque = np.dstack([TWO, np.full((16, 16), 255, np.uint8)])
    assert read(Image.fromarray(opaque), tmp_path / "b.png").changes == ()


def test_sixteen_bits_are_scaled(tmp_path: Path) -> None:
    deep = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    for name in ("a.png", "a.tif", "a.pgm"):
        result = read(Image.fromarray(deep), tmp_path / name)
        assert near(result.pixels[..., 1], np.arange(256).reshape(16, 16))
        assert result.changes == ("16 bits a channel: scaled to 8",)
    assert to_8_bits(np.array([0, 128, 129, 65535])).tolist() == [0, 0, 1, 255]


def test_what_is_deeper_is_not_guessed(tmp_path: Path) -> None:
    Image.fromarray(np.full((16, 16), 0.5, np.float32)).save(tmp_path / "a.tif")
    Image.fromarray(np.full((16, 16), 70000, np.int32)).save(tmp_path / "b.tif")
    for name in ("a.tif", "b.tif"):
        with pytest.raises(UnreadableImageError, match=r"more than 16 bits a channel \([FI]\), of unknown"):
            read_image(tmp_path / name, 16)


@pytest.mark.parametrize(
    ("mode", "suffix", "change"),
    [
        ("CMYK", "tif", "CMYK: to RGB"),
        ("P", "gif", "a palette: to RGB"),
        ("L", "png", "grey: to RGB"),
        ("1", "png", "black and white: to RGB"),
        ("YCbCr", "tif", None),
    ],
)
def test_other_colours_become_rgb(tmp_path: Path, mode: str, suffix: str, change: str | None) -> None:
    picture = Image.fromarray(TWO).convert(mode)
    result = read(picture, tmp_path / f"a.{suffix}")
    assert near(result.pixels, picture.convert("RGB"), within=2)
    assert result.changes == (() if change is None else (change,))


def test_of_several_frames_the_first_is_taken(tmp_path: Path) -> None:
    frames = [Image.fromarray(TWO).quantize(), Image.new("RGB", (16, 16), "green").quantize()]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    result = read_image(tmp_path / "a.gif", 16)
    assert near(result.pixels, TWO)
    assert "more than one frame: the first one taken" in result.changes


@pytest.mark.parametrize("size", [(40, 16), (16, 40)])
def test_what_is_not_square_is_fitted_as_asked(tmp_path: Path, size: tuple[int, int]) -> None:
    width, height = size
    wide = np.full((height, width, 3), 100, np.uint8)
    # One pixel's width at both ends, which cutting loses.
    long_side = 1 if width > height else 0
    np.moveaxis(wide, long_side, 0)[:12] = 200
    np.moveaxis(wide, long_side, 0)[-12:] = 200
    Image.fromarray(wide).save(tmp_path / "a.png")
    cropped, padded, stretched = (
        read_image(tmp_path / "a.png", 16, fit) for fit in ("crop", "pad", "stretch")
    )
    assert near(cropped.pixels, 100)
    along = np.moveaxis(padded.pixels, long_side, 0)
    assert near(along[:, [0, 1, -1]], 0) and near(along[[0, -1], 8], 200)
    along = np.moveaxis(stretched.pixels, long_side, 0)
    assert near(along[0], 200) and near(along[8], 100) and near(along[-1], 200)
    for result, word in ((cropped, "cut"), (padded, "black added"), (stretched, "stretched")):
        assert len(result.changes) == 1 and word in result.changes[0]


def test_a_line_of_pixels_can_be_padded_and_a_small_picture_is_enlarged(tmp_path: Path) -> None:
    Image.new("RGB", (400, 1), "white").save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", 16, "pad").pixels.any()
    Image.new("RGB", (4, 4), "white").save(tmp_path / "b.png")
    assert read_image(tmp_path / "b.png", 16).changes == ("smaller than 16 px: enlarged",)


def heic(path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="pillow-heif has no wheel for this machine")
    pillow_heif.from_pillow(Image.fromarray(np.repeat(np.repeat(TWO, 4, 0), 4, 1))).save(path, quality=100)


def test_heic_is_read_whatever_its_suffix(tmp_path: Path) -> None:
    for name in ("IMG_1.HEIC", "whatsapp.jpg"):
        heic(tmp_path / name)
        away_from_the_edge = [*range(6), *range(10, 16)]
        pixels = read_image(tmp_path / name, 16).pixels
        assert near(pixels[away_from_the_edge], TWO[away_from_the_edge], within=12)


@pytest.fixture
def without_heif(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without pillow-heif, whatever was registered in this process before."""
    Image.init()
    monkeypatch.setattr(Image, "ID", [each for each in Image.ID if each != "HEIF"])
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    monkeypatch.setattr(images, "can_read_heif", lambda: False)


def container(*brands: bytes) -> bytes:
    first, *others = brands
    body = b"ftyp" + first + bytes(4) + b"".join(others)
    return (len(body) + 4).to_bytes(4, "big") + body + bytes(64)


@pytest.mark.usefixtures("without_heif")
@pytest.mark.parametrize("name", ["IMG_1.HEIC", "whatsapp.jpg", "no suffix"])
def test_heic_without_its_plug_in_is_named_with_the_remedy_whatever_its_suffix(
    tmp_path: Path, name: str
) -> None:
    written = [container(b"heic", b"mif1"), container(b"mif1", b"miaf", b"heic"), container(b"msf1")]
    for content in written:
        (tmp_path / name).write_bytes(content)
        for source in (tmp_path / name, io.BytesIO(content)):
            with pytest.raises(UnreadableImageError, match=r"^HEIC, which needs pillow-heif: pip install"):
                read_image(source, 16)


@pytest.mark.usefixtures("without_heif")
def test_a_real_heic_without_its_plug_in(tmp_path: Path) -> None:
    heic(tmp_path / "whatsapp.jpg")
    with pytest.raises(UnreadableImageError, match=r"^HEIC, which needs pillow-heif: pip install"):
        read_image(tmp_path / "whatsapp.jpg", 16)
    Image.fromarray(TWO).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "jpeg in fact.heic")
    assert read_image(tmp_path / "jpeg in fact.heic", 16).pixels.shape == (16, 16, 3)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"%PDF-1.7", "a PDF: save its pictures as JPEG or PNG"),
        (container(b"qt  "), "a film: save frames of it as JPEG or PNG"),
        (container(b"isom", b"mp42"), "a film: save frames of it as JPEG or PNG"),
        (b"\x1a\x45\xdf\xa3webm", "a film: save frames of it as JPEG or PNG"),
        (b"PK\x03\x04", "an archive: unpack it"),
        (b"\xff\x0a" + bytes(9), "JPEG XL: save it as JPEG or PNG"),
        (b"\n<!DOCTYPE html><p>log in first", "a page (HTML): get the picture in it"),
        (b'<?xml version="1.0"?><svg>', "a drawing (SVG): save it as PNG"),
        (b"<?xml version='1.0'?><other>", "damaged, or no image at all"),
        (b"not a picture", "damaged, or no image at all"),
    ],
)
def test_what_is_called_a_picture_and_is_none_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(UnreadableImageError, match=f"^{re.escape(reason)}$"):
        read_image(tmp_path / "a.jpg", 16)


def test_avif_that_pillow_was_built_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.init()
    monkeypatch.setattr(Image, "ID", [each for each in Image.ID if each not in ("AVIF", "HEIF")])
    (tmp_path / "a.jpg").write_bytes(container(b"avif", b"mif1"))
    with pytest.raises(UnreadableImageError, match=r"^AVIF that cannot be read here: save it as JPEG or PNG"):
        read_image(tmp_path / "a.jpg", 16)


def test_without_pillow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(MissingExtraError, match=r"Pillow is not installed: pip install 'gkt-edge\[data\]'"):
        read_image(tmp_path / "a.png", 16)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "AVIF", "HEIF"])
def test_however_a_file_is_damaged_it_is_read_or_named(kind: str) -> None:
    """Decoders raise what they like: one damaged file among thousands must not stop the others."""
    images.can_read_heif()
    rng = np.random.default_rng(0)
    stream = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(stream, kind)
    whole, num_named = stream.getvalue(), 0
    for _ in range(300):
        bent = bytearray(whole[: rng.integers(1, len(whole))] if rng.random() < 0.3 else whole)
        # Mostly in the header, where it does most.
        reach = min(len(bent), 200) if rng.random() < 0.7 else len(bent)
        for place in rng.integers(0, reach, rng.integers(1, 8)):
            bent[place] = rng.integers(0, 256)
        try:
            assert read_image(io.BytesIO(bytes(bent)), 8).pixels.shape == (8, 8, 3)
        except UnreadableImageError:
            num_named += 1
    assert num_named > 30


def test_what_is_not_there_is_not_called_damaged(tmp_path: Path) -> None:
    for path, words in (
        (tmp_path / "nope.jpg", "there is no such file"),
        (tmp_path, "a folder: give the photos in it"),
    ):
        with pytest.raises(UnreadableImageError, match=words):
            read_image(path, 8)
