"""Augmented views of features: what the server sees of a sample in an epoch, when it was uploaded only once.

Like :mod:`gkt_core.data.augment` a pure function, here of (seed, device, sample_id, round_num, epoch): no
state is kept, and a training that was killed sees the same views again. A crop is that of the image but for
a ring of one pixel, as the extractor's convolution saw other neighbours there. A flip is that of the image if
the extractor's filters come with their mirrors (``resnet8-tied``), else one that no image has. Of a narrow
tap neither is that of an image (:func:`inexact_views`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gkt_core.config.run_config import RunConfig
from gkt_core.data.augment import view_hash
from gkt_core.networks import TIED_NETWORKS, layout_of
from gkt_core.rounds.client_part import client_seed
from gkt_core.rounds.feature_source import FeatureBatch, ShardSource

# Views of images are hashed from the same numbers: these must be others.
_OWN_SEED = 0x66656174757265


@dataclass(frozen=True, slots=True)
class FeatureViews:
    """How views of features are drawn in a run; as it stands, features are left as they are.

    Attributes:
        seed: Of the run.
        padding: Pixels that an image is shifted by at most in each direction; 0 for no crop.
        flip: Whether half of the views are mirrored.
        is_tied: Whether a mirrored view exchanges the halves of the channels, filters and their mirrors.
    """

    seed: int = 0
    padding: int = 0
    flip: bool = False
    is_tied: bool = False

    @classmethod
    def of_run(cls, config: RunConfig, edge_network: str) -> FeatureViews:
        """Read them from a run's hyper-parameters and the network whose features these are."""
        padding = config.crop_padding if config.crops_features else 0
        return cls(config.seed, padding, config.flips_features, edge_network in TIED_NETWORKS)

    def draw(
        self, batch: FeatureBatch, source: ShardSource, rows: NDArray[np.intp], round_num: int, epoch: int
    ) -> NDArray[np.float32]:
        """Draw the views ``[n, C, H, W]`` of a batch.

        Args:
            batch: What the source gave for the rows.
            source: Whose samples these are.
            rows: Their positions in it.
            round_num: From 1.
            epoch: Within the round, from 1.
        """
        features = batch.features
        if not (self.padding or self.flip):
            return features
        bits = self._bits(source, rows, round_num, epoch)
        # Of a map that is smaller than the image a pixel stands for several.
        padding = min(self.padding, max(1, features.shape[2] // 8)) if self.padding else 0
        top, left, flip = offsets(bits, padding)
        return shifted_views(features, batch.outside, padding, top, left, flip & self.flip, self.is_tied)

    def _bits(
        self, source: ShardSource, rows: NDArray[np.intp], round_num: int, epoch: int
    ) -> NDArray[np.uint64]:
        owners = source.owners[rows]
        bits = np.empty(len(rows), np.uint64)
        for owner in np.unique(owners):
            mine = owners == owner
            seed = client_seed(self.seed, source.client_ids[owner]) ^ _OWN_SEED
            bits[mine] = view_hash(seed, source.sample_ids[rows[mine]], round_num * 65536 + epoch)
        return bits


def inexact_views(config: RunConfig, edge_network: str) -> str:
    """Say in what augmented features of a narrow tap differ from an image's; empty if there are none."""
    layout = layout_of(edge_network)
    if config.feature_augmentation == "none" or layout is None or not layout.tap_blocks:
        return ""
    return (
        f"features of {edge_network} are augmented ({config.feature_augmentation}) though no image has such "
        f"ones: they move by {layout.stride} pixels of the image at a time, each sees {layout.reach} pixels "
        "around its own, and its filters have no mirrors; whether that helps, the validation accuracy says"
    )


def offsets(
    bits: NDArray[np.uint64], padding: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.bool_]]:
    """Read 64 uniform bits ``[n]`` as rows and columns that a crop begins at, and whether it is mirrored."""
    places = np.uint64(2 * padding + 1)
    top = ((bits & np.uint64(0xFFFFFF)) % places).astype(np.intp)
    left = (((bits >> np.uint64(24)) & np.uint64(0xFFFFFF)) % places).astype(np.intp)
    return top, left, (bits >> np.uint64(63)).astype(bool)


def shifted_views(
    features: NDArray[np.float32],
    outside: NDArray[np.float32],
    padding: int,
    top: NDArray[np.intp],
    left: NDArray[np.intp],
    flip: NDArray[np.bool_],
    is_tied: bool,
) -> NDArray[np.float32]:
    """Cut each map ``[n, C, H, W]`` out of its surroundings.

    Args:
        features: The maps.
        outside: ``[n, C]``: what surrounds them.
        padding: Pixels of it on each side.
        top: ``[n]``: first rows, from 0 to twice the padding.
        left: First columns.
        flip: Which maps are then mirrored.
        is_tied: Whether these exchange the halves of their channels.
    """
    num, channels, height, width = features.shape
    inside = slice(padding, padding + height), slice(padding, padding + width)
    padded = np.empty((channels, height + 2 * padding, width + 2 * padding), np.float32)
    views = np.empty_like(features)
    for row in range(num):
        padded[:] = outside[row][:, None, None]
        padded[:, *inside] = features[row]
        view = padded[:, top[row] : top[row] + height, left[row] : left[row] + width]
        if flip[row]:
            view = view[:, :, ::-1]
            if is_tied:
                view = np.roll(view, channels // 2, axis=0)
        views[row] = view
    return views
