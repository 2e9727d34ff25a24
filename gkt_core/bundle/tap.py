"""What an owner was told of the tap: which network or shape, how many bits; anything else is refused."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gkt_core.bundle.manifest import Manifest
from gkt_core.config.dataclass_options import CheckedOptions, option
from gkt_core.config.run_config import CODEC_BITS
from gkt_core.errors import ConfigError, UnsafeModelError
from gkt_core.networks import check_name, layout_of

_HEADING = "What leaves the device"
_SHAPE = re.compile(r"[1-9]\d{0,4}x[1-9]\d{0,4}x[1-9]\d{0,4}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TapRequirement(CheckedOptions):
    """What a device accepts of a server; as it stands, any tap, of as many bits as the bundle says.

    Attributes:
        require_tap: Take part only if the features that leave are those of this network, such as
            resnet8-16x8x8, or of this shape (channels x height x width), whatever makes them.
        max_bits: Take part only if each number of the features leaves in so many bits at most.

    Raises:
        ConfigError: The tap is neither a name nor a shape, or the bits are none.
    """

    require_tap: str | None = option(None, metavar="NAME|CxHxW", shown_default="any", group=_HEADING)
    max_bits: int | None = option(None, low=1, high=32, shown_default="any", group=_HEADING)

    def __post_init__(self) -> None:
        """Refuse what can be no tap."""
        # Without arguments super() does not find its class, of which dataclasses with slots make another.
        CheckedOptions.__post_init__(self)
        if self.require_tap is None or _SHAPE.fullmatch(self.require_tap):
            return
        try:
            check_name(self.require_tap)
        except ConfigError as error:
            raise ConfigError(
                f"--require-tap is {self.require_tap[:60]!r}, expected a network such as resnet8-16x8x8, or "
                "channels x height x width such as 16x8x8"
            ) from error

    def check(self, manifest: Manifest, codec: str) -> None:
        """Refuse a run whose features are others than the owner was told.

        Args:
            manifest: Of the run's bundle.
            codec: How the run wants features to travel.

        Raises:
            UnsafeModelError: Names the run's tap and what this device was told.
        """
        bits, most = CODEC_BITS[codec], manifest.max_bits
        if most is not None and bits > most:
            raise UnsafeModelError(
                f"the run asks for features as {codec}, {bits} bits a number, and its bundle says {most} "
                "at most: nothing was sent. Ask whoever runs the server; somebody between may have changed it"
            )
        has_tap = self.require_tap is None or self._is_tap_of(manifest)
        if has_tap and (self.max_bits is None or bits <= self.max_bits):
            return
        wanted = [] if self.require_tap is None else [f"{self._tap_words(manifest)} (--require-tap)"]
        wanted += [] if self.max_bits is None else [f"{self.max_bits} bits at most (--max-bits)"]
        raise UnsafeModelError(
            f"the run's tap is {described_tap(manifest, codec)}; this device was told of "
            f"{' and '.join(wanted)}: nothing was sent. Ask whoever runs the server for a run with such a "
            "tap, or accept this one"
        )

    def _is_tap_of(self, manifest: Manifest) -> bool:
        shape = _shape_words(manifest.features)
        if self.require_tap == manifest.edge_network:
            layout = layout_of(manifest.edge_network)
            return layout is None or shape == _shape_words(layout.feature_shape(manifest.image_size))
        return self.require_tap == shape

    def _tap_words(self, manifest: Manifest) -> str:
        tap = self.require_tap or ""
        layout = layout_of(tap)
        if layout is None:
            return tap
        return f"{tap}, which is {_shape_words(layout.feature_shape(manifest.image_size))} here"


def described_tap(manifest: Manifest, codec: str) -> str:
    """Say what leaves: ``resnet8-16x8x8, 16x8x8, 4 bits a number``."""
    return f"{manifest.edge_network}, {_shape_words(manifest.features)}, {CODEC_BITS[codec]} bits a number"


def _shape_words(shape: list[int] | tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
