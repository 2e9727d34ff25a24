"""Options of ``gkt profile privacy``; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gkt_core.config.dataclass_options import check_options, option
from gkt_core.config.run_config import CODECS
from gkt_core.errors import ConfigError

NUM_SHOWN = 10


@dataclass(frozen=True, slots=True)
class PrivacyOptions:
    """What to attack, and how hard.

    Attributes:
        dataset: digits, cifar10 or cifar100 (downloaded), PATH.npz, or a folder with one folder of images a
            class.
        image_size: Scale images to this many pixels, a multiple of 4.
        limit: Images that the attacker has.
        data_root: Where downloads are kept.
        codecs: Codecs, without noise; may be repeated.
        noise: Gaussian noise on float32 features, in their standard deviations; may be repeated.
        epochs: Of each decoder's training.
        extractor_epochs: Local epochs of the device before it uploads; 0 for fresh weights.
        num_victims: Test images to rebuild.
        seed: Of every random choice.
    """

    dataset: str = "digits"
    image_size: int | None = None
    limit: int | None = 2000
    data_root: Path = Path("data")
    codecs: tuple[str, ...] = option(CODECS, flag="--codec", choices=CODECS, shown_default="all")
    noise: tuple[float, ...] = option((0.1, 0.5, 2.0), above=0)
    epochs: int = option(10, low=1)
    extractor_epochs: int = option(1, low=0)
    num_victims: int = option(500, flag="--victims", low=NUM_SHOWN)
    seed: int = option(0, low=0)

    def __post_init__(self) -> None:
        """Refuse what cannot be measured: a ConfigError names the option and what is expected."""
        check_options(self)
        if not self.codecs and not self.noise:
            raise ConfigError("nothing to attack: give --codec or --noise")
