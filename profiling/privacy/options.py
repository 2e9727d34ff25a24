"""Options of ``gkt profile privacy``; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gkt_core.config.dataclass_options import check_options, option
from gkt_core.config.run_config import CODECS
from gkt_core.errors import ConfigError
from gkt_core.networks import EDGE_LAYOUTS

NUM_SHOWN = 10
ATTACKER_NAMES = {"small": "small decoder", "large": "large decoder", "search": "search"}
ATTACKERS = tuple(ATTACKER_NAMES)


@dataclass(frozen=True, slots=True)
class PrivacyOptions:
    """What to attack, and how hard.

    Attributes:
        dataset: digits, cifar10 or cifar100 (downloaded), PATH.npz, or a folder with one folder of images a
            class.
        image_size: Scale images to this many pixels, a multiple of 4.
        limit: Images that the attacker has.
        data_root: Where downloads are kept.
        networks: Whose tap is attacked; may be repeated.
        codecs: Codecs, without noise; may be repeated.
        noise: Gaussian noise on float32 features, in their standard deviations; may be repeated.
        leakage_penalty: Weight of the distance correlation of images and features in the device's loss.
        attackers: Who attacks: a small decoder and one of ten times its size, both trained on other images
            with their features, and a search for images of which the known extractor makes what was
            uploaded; may be repeated.
        epochs: Of each decoder's training.
        steps: Of the search.
        extractor_epochs: Local epochs of the device before it uploads; 0 for fresh weights.
        num_victims: Test images to rebuild.
        gallery: Test images among which an upload's own is looked for.
        seed: Of every random choice.
    """

    dataset: str = "digits"
    image_size: int | None = None
    limit: int | None = 2000
    data_root: Path = Path("data")
    networks: tuple[str, ...] = option(("resnet8",), flag="--model", choices=tuple(EDGE_LAYOUTS))
    codecs: tuple[str, ...] = option(("fp32", "uint4", "uint2"), flag="--codec", choices=CODECS)
    noise: tuple[float, ...] = option((0.5, 2.0), above=0)
    leakage_penalty: float = option(0.0, low=0, high=1000)
    attackers: tuple[str, ...] = option(
        ATTACKERS, flag="--attacker", choices=ATTACKERS, shown_default="all three"
    )
    epochs: int = option(10, low=1)
    steps: int = option(200, low=1)
    extractor_epochs: int = option(1, low=0)
    num_victims: int = option(500, flag="--victims", low=NUM_SHOWN)
    gallery: int = option(10_000, low=NUM_SHOWN)
    seed: int = option(0, low=0)

    def __post_init__(self) -> None:
        """Refuse what cannot be measured: a ConfigError names the option and what is expected."""
        check_options(self)
        if not self.codecs and not self.noise:
            raise ConfigError("nothing to attack: give --codec or --noise")
