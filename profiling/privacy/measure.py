"""All conditions of ``gkt profile privacy`` as one document."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gkt_core.data.augment import to_float_nchw
from gkt_core.data.datasets import load_dataset
from gkt_core.errors import DatasetError
from profiling.frame.measurement import Announce
from profiling.privacy.inversion import reconstruct, train_decoder
from profiling.privacy.options import NUM_SHOWN, PrivacyOptions
from profiling.privacy.similarity import psnr, ssim
from profiling.privacy.uploaded import as_uploaded, extract_features, trained_edge_network


def measure_privacy(options: PrivacyOptions, announce: Announce) -> dict[str, Any]:
    """Attack features of images that nobody trained on.

    The attacker knows the extractor, which every device of a run begins with, and has the training images
    and their features; it wants the test images. One decoder is trained for each condition.

    Raises:
        DatasetError: The dataset cannot be read, or has fewer than ten test images.
    """
    dataset = load_dataset(
        options.dataset,
        image_size=options.image_size,
        limit=options.limit,
        seed=options.seed,
        data_root=options.data_root,
    )
    if len(dataset.x_test) < NUM_SHOWN:
        raise DatasetError(
            f"{dataset.name} has {len(dataset.x_test)} test images, expected {NUM_SHOWN} or more"
        )
    announce("training the device's network")
    network = trained_edge_network(
        dataset.x_train,
        dataset.y_train,
        num_classes=len(dataset.class_names),
        epochs=options.extractor_epochs,
        seed=options.seed,
    )
    chosen = np.random.default_rng(options.seed).permutation(len(dataset.x_test))[: options.num_victims]
    known, wanted = (extract_features(network, x) for x in (dataset.x_train, dataset.x_test[chosen]))
    known_images = torch.from_numpy(to_float_nchw(dataset.x_train))
    victims = torch.from_numpy(to_float_nchw(dataset.x_test[chosen]))
    spread = float(known.std())
    conditions = [(codec, 0.0) for codec in options.codecs] + [("fp32", level) for level in options.noise]
    attacked, pictures = [], {"original": _picture(victims)}
    for codec, noise in conditions:
        name = codec if not noise else f"{codec}, noise {noise:g}"
        announce(f"attacking {name}")
        uploaded = as_uploaded(known, codec, noise, spread=spread, seed=options.seed + 1)
        decoder = train_decoder(uploaded, known_images, epochs=options.epochs, seed=options.seed)
        stolen = as_uploaded(wanted, codec, noise, spread=spread, seed=options.seed + 2)
        rebuilt = reconstruct(decoder, stolen)
        clean = torch.from_numpy(wanted)
        error = float((stolen - clean).norm() / clean.norm())
        attacked.append(
            {"name": name, "codec": codec, "noise": noise, "feature_error": error, **_alike(victims, rebuilt)}
        )
        pictures[name] = _picture(rebuilt)
    nothing = known_images.mean(dim=0, keepdim=True).expand_as(victims)
    return {
        "conditions_attacked": attacked,
        "without_features": _alike(victims, nothing),
        "pictures": {"image_size": int(victims.shape[2]), "num": NUM_SHOWN, "rgb_base64": pictures},
        "what_leaves": ["feature maps of every image", "labels, as they are", "logits", "sample ids"],
        "settings": {
            "dataset": dataset.name,
            "num_known_images": len(known_images),
            "num_attacked_images": len(victims),
        },
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
