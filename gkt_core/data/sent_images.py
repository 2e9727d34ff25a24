"""Images as a device would send them: what each file weighs, and what arrives."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np

from gkt_core.data.private_data import Samples
from gkt_core.errors import ConfigError, needs

# Pillow's format and options; JPEG with colours at half the resolution, as is usual.
_FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "png": ("PNG", {"optimize": True}),
    "jpeg75": ("JPEG", {"quality": 75, "optimize": True}),
    "jpeg95": ("JPEG", {"quality": 95, "optimize": True}),
}
SENT_AS = tuple(_FORMATS)


def sent_images(samples: Samples, sent_as: str) -> tuple[Samples, int]:
    """Write every image as a file of its own, and read it again.

    Args:
        samples: Of one device.
        sent_as: ``png``, ``jpeg75`` or ``jpeg95``.

    Returns:
        The samples with the images that arrive, and the bytes of all files together.

    Raises:
        ConfigError: There is no such format.
    """
    if sent_as not in _FORMATS:
        raise ConfigError(f"images cannot be sent as {sent_as!r}, expected one of {', '.join(SENT_AS)}")
    with needs("data"):
        from PIL import Image  # noqa: PLC0415 - an extra
    kind, options = _FORMATS[sent_as]
    arrived, num_bytes = np.empty_like(samples.images), 0
    for place, image in enumerate(samples.images):
        file = io.BytesIO()
        Image.fromarray(image).save(file, kind, **options)
        num_bytes += file.tell()
        with Image.open(file) as read:
            arrived[place] = np.asarray(read)
    return replace(samples, images=arrived), num_bytes
