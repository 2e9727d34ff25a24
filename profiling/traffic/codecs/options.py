"""Options of ``gkt profile codecs``; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gkt_core.config.dataclass_options import CheckedOptions, option
from gkt_core.config.run_config import PACKED_CODECS
from gkt_core.networks import EDGE_LAYOUTS, NARROW_NETWORKS

_USUAL = ("resnet8", *NARROW_NETWORKS)


@dataclass(frozen=True, slots=True)
class CodecsOptions(CheckedOptions):
    """Whose features to code.

    Attributes:
        dataset: digits, cifar10 or cifar100 (downloaded), PATH.npz, or a folder with one folder of images a
            class.
        image_size: Scale images to this many pixels, a multiple of 4.
        limit: Images that the networks are trained on.
        data_root: Where downloads are kept.
        networks: Whose tap; may be repeated.
        codecs: Of how many bits; may be repeated.
        epochs: Of each network's training on these images; 0 for fresh weights.
        num_images: Test images whose features are coded.
        shard_samples: Samples in one shard.
        repeats: Times that each shard is coded; the fastest counts.
        seed: Of weights and order.
    """

    dataset: str = "digits"
    image_size: int | None = None
    limit: int | None = 2000
    data_root: Path = Path("data")
    networks: tuple[str, ...] = option(
        _USUAL, flag="--model", choices=tuple(EDGE_LAYOUTS), shown_default="resnet8 and the narrow ones"
    )
    codecs: tuple[str, ...] = option(
        PACKED_CODECS, flag="--codec", choices=PACKED_CODECS, shown_default="all"
    )
    epochs: int = option(3, low=0)
    num_images: int = option(512, flag="--images", low=1)
    shard_samples: int = option(64, low=1)
    repeats: int = option(3, low=1)
    seed: int = option(0, low=0)
