"""All taps, conditions and attackers of ``gkt profile privacy`` as one document."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gkt_core.data.augment import to_float_nchw
from gkt_core.data.datasets import Dataset, load_dataset
from gkt_core.errors import DatasetError
from gkt_core.nn import EdgeNetwork
from profiling.frame.measurement import Announce
from profiling.privacy.decoders import LARGE, SMALL, reconstruct, train_decoder
from profiling.privacy.options import ATTACKER_NAMES, NUM_SHOWN, PrivacyOptions
from profiling.privacy.recognising import identified, label_accuracy
from profiling.privacy.searching import best_prior, search
from profiling.privacy.similarity import gmsd, psnr, ssim
from profiling.privacy.uploaded import as_uploaded, extract_features, trained_edge_network

# Images that the attacker knows, on which it tries its priors.
_NUM_TRIED = 64


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Images ``[N, 3, S, S]`` in 0..1, their labels, and what the network makes of them."""

    features: NDArray[np.float32]
    logits: NDArray[np.float32]
    images: Tensor
    labels: Tensor


def measure_privacy(options: PrivacyOptions, announce: Announce) -> dict[str, Any]:
    """Attack features of images that nobody trained on.

    The attacker knows the extractor, which every device of a run begins with, and has the training images
    and their features; it wants the test images.

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
    shuffled = np.random.default_rng(options.seed).permutation(len(dataset.x_test))
    chosen = shuffled[: options.num_victims]
    # Whoever is wanted is among those whom it might be.
    candidates = shuffled[: max(options.gallery, len(chosen))]
    victims, known = (torch.from_numpy(to_float_nchw(x)) for x in (dataset.x_test[chosen], dataset.x_train))
    attacked: list[dict[str, Any]] = []
    pictures = {"original": _picture(victims)}
    for network_name in options.networks:
        announce(f"training {network_name}")
        network = trained_edge_network(
            network_name,
            dataset.x_train,
            dataset.y_train,
            num_classes=len(dataset.class_names),
            epochs=options.extractor_epochs,
            seed=options.seed,
            leakage_penalty=options.leakage_penalty,
        )
        run = _Attack(options, dataset, network, chosen, candidates, announce)
        for condition, rebuilt in run.conditions(network_name):
            attacked.append(condition)
            pictures[condition["name"]] = _picture(rebuilt)
    nothing = known.mean(dim=0, keepdim=True).expand_as(victims)
    counts = np.bincount(dataset.y_test[chosen], minlength=len(dataset.class_names))
    return {
        "conditions_attacked": attacked,
        "without_features": {**_alike(victims, nothing), "label_accuracy": float(counts.max() / len(chosen))},
        "pictures": {"image_size": int(victims.shape[2]), "num": NUM_SHOWN, "rgb_base64": pictures},
        "what_leaves": ["feature maps of every image", "labels, as they are", "logits", "sample ids"],
        "settings": {
            "dataset": dataset.name,
            "num_known_images": len(known),
            "num_attacked_images": len(victims),
            "num_candidates": len(candidates),
        },
    }


class _Attack:
    """Every condition of one device's network, by every attacker."""

    def __init__(
        self,
        options: PrivacyOptions,
        dataset: Dataset,
        network: EdgeNetwork,
        chosen: NDArray[np.int64],
        candidates: NDArray[np.int64],
        announce: Announce,
    ) -> None:
        def pairs(x: NDArray[np.uint8], y: NDArray[np.int64]) -> _Pairs:
            features, logits = extract_features(network, x)
            labels = torch.from_numpy(y.astype(np.int64))
            return _Pairs(features, logits, torch.from_numpy(to_float_nchw(x)), labels)

        self.options, self.network, self.announce = options, network, announce
        self.num_classes = len(dataset.class_names)
        self.known = pairs(dataset.x_train, dataset.y_train)
        self.wanted = pairs(dataset.x_test[chosen], dataset.y_test[chosen])
        self.gallery = torch.from_numpy(extract_features(network, dataset.x_test[candidates])[0])
        self.spread = float(self.known.features.std())

    def conditions(self, network_name: str) -> Iterator[tuple[dict[str, Any], Tensor]]:
        """Attack each; what was measured, and the images that the strongest attacker rebuilt."""
        options = self.options
        asked = [(codec, 0.0) for codec in options.codecs] + [("fp32", level) for level in options.noise]
        for codec, noise in asked:
            name = codec if not noise else f"{codec}, noise {noise:g}"
            if len(options.networks) > 1:
                name = f"{network_name}, {name}"
            measured, rebuilt = self._attacked(name, codec, noise)
            strongest = max(rebuilt, key=lambda each: float(measured[each]["ssim_median"]))
            said = {"name": name, "network": network_name, "codec": codec, "noise": noise}
            said["feature_shape"] = list(self.known.features.shape[1:])
            yield (
                {
                    **said,
                    **measured.pop("upload"),
                    **measured[strongest],
                    "strongest": strongest,
                    "attackers": measured,
                },
                rebuilt[strongest],
            )

    def _attacked(self, name: str, codec: str, noise: float) -> tuple[dict[str, Any], dict[str, Tensor]]:
        options, known, wanted = self.options, self.known, self.wanted
        seen, stolen = (
            as_uploaded(
                each.features, each.logits, codec, noise, spread=self.spread, seed=options.seed + number
            )
            for number, each in ((1, known), (2, wanted))
        )
        clean = torch.from_numpy(wanted.features)
        upload = {
            "feature_error": float((stolen.features - clean).norm() / clean.norm()),
            "bytes_per_sample": stolen.bytes_per_sample,
            "identified": identified(stolen.features, self.gallery, torch.arange(len(clean))),
            "label_accuracy": label_accuracy(
                seen.features,
                known.labels,
                stolen.features,
                wanted.labels,
                num_classes=self.num_classes,
                epochs=options.epochs,
                seed=options.seed,
            ),
        }
        rebuilt: dict[str, Tensor] = {}
        tried = (
            known.images[:_NUM_TRIED]
            .mean(dim=0, keepdim=True)
            .expand(len(known.images[:_NUM_TRIED]), -1, -1, -1)
        )
        start = known.images.mean(dim=0, keepdim=True).expand_as(wanted.images)
        for attacker, size in (("small", SMALL), ("large", LARGE)):
            if attacker not in options.attackers:
                continue
            self.announce(f"attacking {name}: {ATTACKER_NAMES[attacker]}")
            # Those on which priors are tried are kept from the decoder: it would be too good on them.
            pairs = seen.features[_NUM_TRIED:], known.images[_NUM_TRIED:]
            decoder = train_decoder(*pairs, size, epochs=options.epochs, seed=options.seed)
            start = rebuilt[attacker] = reconstruct(decoder, stolen.features)
            tried = reconstruct(decoder, seen.features[:_NUM_TRIED])
        if "search" in options.attackers:
            self.announce(f"attacking {name}: {ATTACKER_NAMES['search']}")
            prior = best_prior(
                self.network,
                seen.features[:_NUM_TRIED],
                tried,
                known.images[:_NUM_TRIED],
                steps=options.steps,
            )
            rebuilt["search"] = search(self.network, stolen.features, start, prior, steps=options.steps)
        measured: dict[str, Any] = {each: _alike(wanted.images, images) for each, images in rebuilt.items()}
        return {"upload": upload, **measured}, rebuilt


def _alike(images: Tensor, others: Tensor) -> dict[str, float]:
    """Medians and the worst case: the tenth of the images that came out best."""
    structure, signal, seen = ssim(images, others), psnr(images, others).clamp(max=100), gmsd(images, others)
    return {
        "ssim_median": float(structure.median()),
        "ssim_p90": float(torch.quantile(structure, 0.9)),
        "psnr_median_db": float(signal.median()),
        "psnr_p90_db": float(torch.quantile(signal, 0.9)),
        "gmsd_median": float(seen.median()),
    }


def _picture(images: Tensor) -> str:
    shown = (images[:NUM_SHOWN] * 255).round().clamp(0, 255).to(torch.uint8)
    return base64.b64encode(shown.permute(0, 2, 3, 1).contiguous().numpy().tobytes()).decode()
