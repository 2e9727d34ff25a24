"""Noise on features: a pure function of (key, sample_id, round_num), the same however often it is drawn.

A device that was stopped sends the very bytes that it would have sent, so noise is never drawn from a
stream. The key is a secret of the device: with the run's seed, which the server knows, the server could
draw the noise again and take it away. For the same reason the numbers come from SHAKE-256 and not from
the hash of :mod:`gkt_core.data.augment`, which a few known values give away.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gkt_core.config.dataclass_options import CheckedOptions, option
from gkt_core.errors import ConfigError

KEY_BYTES = 32
_MOST, _HEADING = 1_000_000, "What leaves the device"


@dataclass(frozen=True, slots=True)
class FeatureNoise(CheckedOptions):
    """What happens to a device's features before they leave it: clipped first, then blurred.

    No guarantee comes with it: noise differs from round to round, so a server that averages a sample over
    rounds sees it better than in one; labels and logits travel as they are.

    Attributes:
        clip: Features are limited to ``-clip..clip``; 0 for no limit.
        noise: Standard deviation of the Gaussian noise, in the unit of the features; 0 for none.
        key: The secret that the noise is drawn from, :data:`KEY_BYTES` long where there is noise.
        label_privacy: Epsilon of the labels: each is exchanged at random, once for the whole run, so that
            what leaves tells any two labels of a sample apart by a factor of exp(epsilon) at most; 0 for
            labels as they are.

    Raises:
        ConfigError: A value is negative or no number.
    """

    clip: float = option(0.0, low=0, high=_MOST, flag="--feature-clip", group=_HEADING)
    noise: float = option(0.0, low=0, high=_MOST, flag="--feature-noise", group=_HEADING)
    key: bytes = field(default=b"", repr=False)
    label_privacy: float = option(0.0, low=0, high=50, metavar="EPSILON", group=_HEADING)

    @property
    def needs_key(self) -> bool:
        """Whether anything is drawn."""
        return self.is_on or self.label_privacy > 0

    @property
    def is_on(self) -> bool:
        """Whether features are changed at all."""
        return self.clip > 0 or self.noise > 0

    def as_options(self) -> str:
        """Say it as it is typed."""
        said = f"--feature-clip {self.clip:g} --feature-noise {self.noise:g}"
        return said + (f" --label-privacy {self.label_privacy:g}" if self.label_privacy else "")

    def blur(
        self, features: NDArray[np.float32], sample_ids: NDArray[np.int64], round_num: int
    ) -> NDArray[np.float32]:
        """Clip and blur a copy of features ``[N, C, H, W] float32`` as they leave the device in a round.

        Raises:
            ConfigError: There is noise, and no key to draw it from.
        """
        if self.clip:
            features = np.clip(features, np.float32(-self.clip), np.float32(self.clip))
        if not self.noise:
            return features
        if len(self.key) != KEY_BYTES:
            raise ConfigError(f"the key of the feature noise has {len(self.key)} bytes, expected {KEY_BYTES}")
        blurred = np.empty_like(features)
        for row, sample_id in enumerate(sample_ids):
            drawn = gaussian(self.key, int(sample_id), round_num, features[row].size)
            blurred[row] = features[row] + np.float32(self.noise) * drawn.reshape(features[row].shape)
        return blurred


def gaussian(key: bytes, sample_id: int, round_num: int, num: int) -> NDArray[np.float32]:
    """Draw a sample's ``[num] float32`` normal numbers of a round (Box and Muller, 1958, on SHAKE-256)."""
    pairs = -(-num // 2)
    name = b"gkt feature noise" + key + sample_id.to_bytes(8, "little", signed=True)
    digest = hashlib.shake_256(name + round_num.to_bytes(8, "little")).digest(8 * pairs)
    # Never 0, whose logarithm is none.
    uniform = (np.frombuffer(digest, "<u4").astype(np.float64) + 0.5) / 2.0**32
    radius, angle = np.sqrt(-2.0 * np.log(uniform[:pairs])), 2.0 * np.pi * uniform[pairs:]
    drawn = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
    return drawn[:num].astype(np.float32)


def new_key() -> bytes:
    """Draw a secret for one device."""
    return secrets.token_bytes(KEY_BYTES)


def simulated_key(seed: int, client_id: str) -> bytes:
    """Derive a simulated device's key, where repeating the run matters and nobody is to be kept out."""
    return hashlib.sha256(f"feature noise/{seed}/{client_id}".encode()).digest()
