"""Undo the crops and flips of views: the server knows them from (seed, device, sample, round) alone.

Two views of one image show the scene at other places, and what a fixed camera sees looks like another scene
after a crop of a few pixels. So features are compared only where they show the same part of the image. And
where a crop reaches beyond the image it is black: an upload that was not made of these views does not know
where.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gkt_core.config.run_config import RunConfig
from gkt_core.data.augment import view_places
from gkt_core.rounds.client_part import client_seed

# Of the middle of an image, in features: enough to know it again.
PATCH = 12
_FEWEST_AT_A_PLACE = 4
_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Views:
    """How the views of some samples lie.

    Attributes:
        down: ``[n] intp``: row 0 of each view is this row of the image, negative where it is padding.
        right: ``[n] intp``: the same of columns.
        flip: ``[n] bool``: whether the view is mirrored.
        crop_padding: The largest of these numbers.
        image_size: Height and width of an image in pixels.
        reach: Pixels that a feature sees beyond its own (:func:`gkt_core.networks.reach_of`): in padding it
            sees nothing of the image where it lies deeper.
    """

    down: NDArray[np.intp]
    right: NDArray[np.intp]
    flip: NDArray[np.bool_]
    crop_padding: int
    image_size: int
    reach: int = 1

    @classmethod
    def of_round(
        cls,
        config: RunConfig,
        client_id: str,
        round_num: int,
        sample_ids: NDArray[np.int64],
        image_size: int,
        reach: int = 1,
    ) -> Views:
        """Draw again how a device has cut its training images in a round."""
        top, left, flip = view_places(
            sample_ids,
            seed=client_seed(config.seed, client_id),
            round_num=round_num,
            crop_padding=config.crop_padding,
            horizontal_flip=config.horizontal_flip,
        )
        padding = config.crop_padding
        return cls(top - padding, left - padding, flip, padding, image_size, reach)

    @classmethod
    def plain(cls, num: int, image_size: int) -> Views:
        """Images as they are: those of a validation split."""
        nothing = np.zeros(num, np.intp)
        return cls(nothing, nothing, np.zeros(num, bool), 0, image_size)

    def change(self) -> NDArray[np.bool_]:
        """``[n - 1]``: whether each view but the first lies otherwise than the one before."""
        places = np.stack([self.down, self.right, self.flip.astype(np.intp)], axis=1)
        return np.asarray(np.any(np.diff(places, axis=0) != 0, axis=1))

    def patches(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Cut the same part of each image out of features, whatever the view was.

        Args:
            features: ``[n, C, H, W] float32``.

        Returns:
            ``[n, C, h, w] float32``, the middle of the images, at most :data:`PATCH` high and wide, mirrored
            views turned back. Empty where no part of the image is in every view.
        """
        height, width = features.shape[2:]
        straight = np.where(self.flip[:, None, None, None], features[..., ::-1], features)
        rows = self._middle(height)[None, :] - self._scaled(self.down, height)[:, None]
        columns = self._middle(width)[None, :] - self._scaled(self.right, width)[:, None]
        num = np.arange(len(features))[:, None, None, None]
        channels = np.arange(features.shape[1])[None, :, None, None]
        return np.asarray(straight[num, channels, rows[:, None, :, None], columns[:, None, None, :]])

    def _scaled(self, pixels: NDArray[np.intp], num_features: int) -> NDArray[np.intp]:
        return np.asarray(np.rint(pixels * (num_features / self.image_size)), np.intp)

    def _middle(self, num_features: int) -> NDArray[np.intp]:
        """Rows or columns of the image that every view shows, the middle ones."""
        # A view's own edge is seen in the features beside it.
        pixels = self.crop_padding + (self.reach if self.crop_padding else 0)
        hidden = -(-pixels * num_features // self.image_size)
        length = min(PATCH, max(0, num_features - 2 * hidden))
        begin = (num_features - length) // 2
        return np.arange(begin, begin + length)

    def padding_trace(self, features: NDArray[np.float32]) -> tuple[float, float, int]:
        """Compare how features vary where a view is black and where it shows the image.

        Products of neighbours, so that noise which an owner puts on features counts on neither side.

        Args:
            features: ``[n, C, H, W] float32``.

        Returns:
            Covariance of neighbours in the padding, the same in the image, both in units of the features'
            variance; and the number of samples whose padding says something.
        """
        height, width = features.shape[2:]
        row_depth, column_depth = self._depth(self.down, height), self._depth(self.right, width)
        column_depth = np.where(self.flip[:, None], column_depth[:, ::-1], column_depth)
        depth = np.maximum(row_depth[:, :, None], column_depth[:, None, :])
        variance = float(np.var(features, axis=(0, 2, 3), dtype=np.float64).mean())
        black, shown = depth > self.reach, depth < 0
        inside = _neighbours(features, black), _neighbours(features, shown)
        num = int(np.any(black, axis=(1, 2)).sum())
        return inside[0] / max(variance, _TINY), inside[1] / max(variance, _TINY), num

    def _depth(self, shift: NDArray[np.intp], num_features: int) -> NDArray[np.intp]:
        """``[n, num_features]``: pixels between each row and the image; negative inside."""
        step = self.image_size / num_features
        # Of what a feature covers, the pixel that is nearest to the image.
        first = np.floor(np.arange(num_features) * step).astype(np.intp)[None, :] + shift[:, None]
        last = np.ceil((np.arange(num_features) + 1) * step).astype(np.intp)[None, :] - 1 + shift[:, None]
        return np.asarray(np.maximum(-last, first - self.image_size + 1))


def _neighbours(features: NDArray[np.float32], where: NDArray[np.bool_]) -> float:
    """Mean product of neighbouring deviations from the mean of their place over samples, of some places."""
    counts = where.sum(axis=0)
    mask = where & (counts >= _FEWEST_AT_A_PLACE)
    weights = mask[:, None].astype(np.float32)
    means = (features * weights).sum(axis=0) / np.maximum(counts, 1)
    deviations = (features - means) * weights
    total, number = 0.0, 0
    for axis in (1, 2):
        before, after = (slice(None, -1), slice(1, None))
        pick = (slice(None),) * axis
        both = mask[(*pick, before)] & mask[(*pick, after)]
        whole = (slice(None),) * (axis + 1)
        products = deviations[(*whole, before)] * deviations[(*whole, after)]
        total += float(np.sum(products * both[:, None], dtype=np.float64))
        number += int(both.sum()) * features.shape[1]
    return total / max(1, number)
