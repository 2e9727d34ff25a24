"""``gkt profile privacy``: what an attacker sees, with ten images and what becomes of them."""

from __future__ import annotations

import base64
from typing import Any

from profiling.frame import Document, Measurement, Plot, Section
from profiling.frame.tables import table
from profiling.privacy.options import ATTACKER_NAMES, PrivacyOptions


def _conditions(document: Document) -> Section:
    attacked, nothing, settings = (
        document[key] for key in ("conditions_attacked", "without_features", "settings")
    )
    best = max(attacked, key=lambda each: float(each["ssim_median"]))
    rows = [
        {
            **each,
            "attacker": ATTACKER_NAMES[attacker],
            "upload": f"{each['bytes_per_sample']:,.0f}",
            **reached,
        }
        for each in attacked
        for attacker, reached in each["attackers"].items()
    ]
    return table(
        f"Reconstruction of {settings['num_attacked_images']} images that nobody trained on",
        {
            "features": "{name}",
            "bytes a\nsample": "{upload}",
            "attacker": "{attacker}",
            "SSIM\nmedian": "{ssim_median:.3f}",
            "SSIM\np90": "{ssim_p90:.3f}",
            "PSNR\nmedian dB": "{psnr_median_db:.1f}",
            "PSNR\np90 dB": "{psnr_p90_db:.1f}",
            "GMSD\nmedian": "{gmsd_median:.3f}",
        },
        [*rows, {"name": "no features: the mean image", "upload": "", "attacker": "", **nothing}],
        notes=(
            "Feature maps AND LABELS leave the device: " + "; ".join(document["what_leaves"]) + ".",
            f"The strongest attacker rebuilds images from {best['name']} features with a median SSIM of "
            f"{best['ssim_median']:.2f} (1 is the image itself, {nothing['ssim_median']:.2f} needs no "
            "features at all). Treat features as you would treat the images. All figures are lower bounds: "
            "there are stronger attackers.",
            f"The attackers have {settings['num_known_images']} other images with their features and know "
            f"the extractor; decoders trained for {settings['epochs']} epochs, the extractor "
            f"{settings['extractor_epochs']}. p90: one image in ten came out better. GMSD: 0 looks the same, "
            "more looks worse. Noise is in standard deviations of the features.",
        ),
    )


def _recognised(document: Document) -> Section:
    settings, nothing = document["settings"], document["without_features"]
    chance = {
        "name": "no features",
        "error": "",
        "identified": 1 / settings["num_candidates"],
        "label_accuracy": nothing["label_accuracy"],
    }
    rows = [{**each, "error": f"{each['feature_error']:.3f}"} for each in document["conditions_attacked"]]
    return table(
        "What features say without a picture",
        {
            "features": "{name}",
            "feature\nerror": "{error}",
            f"its image is picked out\nof {settings['num_candidates']:,}": "{identified:.1%}",
            "label told from\nfeatures alone": "{label_accuracy:.1%}",
        },
        [*rows, chance],
        notes=(
            "Picked out: whoever has the images compares what the extractor makes of each. Labels: a small "
            "network that learned from the attacker's images; without features, the most frequent class.",
        ),
    )


def _draw(document: Document) -> Any:
    import numpy as np  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415 - a device has none

    pictures = document["pictures"]
    size, num = pictures["image_size"], pictures["num"]
    values = {each["name"]: each["ssim_median"] for each in document["conditions_attacked"]}
    rows = pictures["rgb_base64"]
    figure = Figure(figsize=(8.6, 0.75 * len(rows)), layout="constrained")
    for axes, (name, data) in zip(np.atleast_1d(figure.subplots(len(rows), 1)), rows.items(), strict=True):
        images = np.frombuffer(base64.b64decode(data), np.uint8).reshape(num, size, size, 3)
        axes.imshow(np.concatenate(list(images), axis=1), interpolation="nearest")
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(False)
        label = name.replace(", ", "\n", 1) + (f"\nSSIM {values[name]:.2f}" if name in values else "")
        axes.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
    return figure


class Privacy(Measurement[PrivacyOptions]):
    """Rebuild images from uploaded features, by three attackers, for each tap, codec and noise level.

    Features AND LABELS leave a device. This shows how much of the images the features are: SSIM, PSNR and
    GMSD of the reconstructions, ten of them as a picture (--out privacy.png), how often an upload's image is
    picked out of many, and how often its label is told. Some minutes for the digits, an hour for CIFAR-10.
    """

    name = "privacy"
    options = PrivacyOptions
    measured_by = "profiling.privacy.measure:measure_privacy"
    example = "gkt profile privacy --out privacy.json --out privacy.png"
    extra = "export,profile"
    quick = ("--limit", "200", "--epochs", "1", "--victims", "50", "--steps", "5")
    not_measured = (
        "stronger attackers, which see more: these figures are lower bounds of what the features give away",
        "attackers that know neither the extractor nor similar images, which see less",
        "augmented views (crop, flip), of which each round shows another",
        "what logits and soft labels give away beside the label, which travels as it is",
        "differential privacy: the noise here carries no guarantee",
        "what noise costs in accuracy",
    )
    heading = "What features of {settings[dataset]} give away"
    tables = (_conditions, _recognised)
    plots = (Plot("Ten images, and what an attacker makes of their features", _draw),)
