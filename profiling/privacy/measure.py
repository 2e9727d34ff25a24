"""All conditions of ``gkt profile privacy`` as one document."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gkt_core.config.run_config import CODECS
from gkt_core.data.augment import to_float_nchw
from gkt_core.data.datasets import Dataset
from gkt_core.errors import ConfigError, DatasetError
from profiling.frame.machine import describe_machine
from profiling.privacy.inversion import reconstruct, train_decoder
from profiling.privacy.similarity import psnr, ssim
from profiling.privacy.uploaded import as_uploaded, extract_features, trained_edge_network

SCHEMA = "gkt-profile-privacy/1"
NUM_SHOWN = 10
NOT_MEASURED = (
    "larger attackers, which see more: these figures are a lower bound of what the features give away",
    "attackers that know neither the extractor nor similar images, which see less",
    "augmented views (crop, flip), of which each round shows another",
    "what logits and soft labels give away beside the label, which travels as it is",
    "differential privacy: the noise here carries no guarantee",
    "what noise costs in accuracy",
)


@dataclass(frozen=True, slots=True)
class PrivacyOptions:
    """What to attack, and how hard.

    Attributes:
        codecs: Codecs, without noise.
        noise: Levels of Gaussian noise on float32 features, in standard deviations of the features.
        epochs: Of each decoder's training.
        extractor_epochs: Local epochs of the device before it uploads; 0 for fresh weights.
        num_victims: Test images that are reconstructed.
        seed: Of every random choice.
    """

    codecs: tuple[str, ...] = CODECS
    noise: tuple[float, ...] = (0.1, 0.5, 2.0)
    epochs: int = 10
    extractor_epochs: int = 1
    num_victims: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse values that nothing can be measured with.

        Raises:
            ConfigError: Names the option, what was found and what is expected.
        """
        for codec in self.codecs:
            if codec not in CODECS:
                raise ConfigError(f"unknown codec {codec!r}, expected one of {', '.join(CODECS)}")
        for level in self.noise:
            if not (np.isfinite(level) and level > 0):
                raise ConfigError(f"noise is {level}, expected a positive number")
        for name, low in (("epochs", 1), ("extractor_epochs", 0), ("num_victims", NUM_SHOWN), ("seed", 0)):
            if getattr(self, name) < low:
                words = name.replace("num_", "number of ").replace("_", " ")
                raise ConfigError(f"{words} is {getattr(self, name)}, expected at least {low}")


def measure_privacy(
    dataset: Dataset, options: PrivacyOptions, on_phase: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Attack features of images that nobody trained on.

    The attacker knows the extractor, which every device of a run begins with, and has the training images
    and their features; it wants the test images. One decoder is trained for each condition.

    Args:
        dataset: Training images for device and attacker, test images as victims.
        options: What to attack.
        on_phase: Told what happens now.

    Returns:
        The document; profiling/README.md describes every key.

    Raises:
        DatasetError: Fewer than ten test images.
    """
    if len(dataset.x_test) < NUM_SHOWN:
        raise DatasetError(
            f"{dataset.name} has {len(dataset.x_test)} test images, expected {NUM_SHOWN} or more"
        )
    on_phase("training the device's network")
    network = trained_edge_network(
        dataset.x_train,
        dataset.y_train,
        num_classes=len(dataset.class_names),
        epochs=options.extractor_epochs,
        seed=options.seed,
    )
    chosen = np.random.default_rng(options.seed).permutation(len(dataset.x_test))[: options.num_victims]
    known, wanted = (
        extract_features(network, dataset.x_train),
        extract_features(network, dataset.x_test[chosen]),
    )
    known_images = torch.from_numpy(to_float_nchw(dataset.x_train))
    victims = torch.from_numpy(to_float_nchw(dataset.x_test[chosen]))
    spread = float(known.std())
    conditions = [(codec, 0.0) for codec in options.codecs] + [("fp32", level) for level in options.noise]
    found, pictures = [], {"original": _picture(victims)}
    for codec, noise in conditions:
        name = codec if not noise else f"{codec}, noise {noise:g}"
        on_phase(f"attacking {name}")
        uploaded = as_uploaded(known, codec, noise, spread=spread, seed=options.seed + 1)
        decoder = train_decoder(uploaded, known_images, epochs=options.epochs, seed=options.seed)
        stolen = as_uploaded(wanted, codec, noise, spread=spread, seed=options.seed + 2)
        rebuilt = reconstruct(decoder, stolen)
        clean = torch.from_numpy(wanted)
        error = float((stolen - clean).norm() / clean.norm())
        found.append(
            {"name": name, "codec": codec, "noise": noise, "feature_error": error, **_alike(victims, rebuilt)}
        )
        pictures[name] = _picture(rebuilt)
    nothing = known_images.mean(dim=0, keepdim=True).expand_as(victims)
    return {
        "schema": SCHEMA,
        "conditions_attacked": found,
        "without_features": _alike(victims, nothing),
        "pictures": {"image_size": int(victims.shape[2]), "num": NUM_SHOWN, "rgb_base64": pictures},
        "what_leaves": ["feature maps of every image", "labels, as they are", "logits", "sample ids"],
        "not_measured": list(NOT_MEASURED),
        "settings": {
            **dataclasses.asdict(options),
            "dataset": dataset.name,
            "num_known_images": len(known_images),
            "num_attacked_images": len(victims),
        },
        "machine": describe_machine(),
    }


def _alike(images: Tensor, others: Tensor) -> dict[str, float]:
    """Medians and the worst case: the tenth of the images that came out best."""
    structure, signal = ssim(images, others), psnr(images, others).clamp(max=100)
    return {
        "ssim_median": float(structure.median()),
        "ssim_p90": float(torch.quantile(structure, 0.9)),
        "psnr_median_db": float(signal.median()),
        "psnr_p90_db": float(torch.quantile(signal, 0.9)),
    }


def _picture(images: Tensor) -> str:
    shown = (images[:NUM_SHOWN] * 255).round().clamp(0, 255).to(torch.uint8)
    return base64.b64encode(shown.permute(0, 2, 3, 1).contiguous().numpy().tobytes()).decode()
