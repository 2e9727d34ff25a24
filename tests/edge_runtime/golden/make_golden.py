"""What a device computes, from fixed inputs: the files that hold its languages together.

``python -m tests.edge_runtime.golden.make_golden`` writes ``device.json`` beside this file, from the real
modules. A Python test holds that it is what they give, and every other language's tests read it. Bytes stand
there as base64, whole numbers of 64 bits as texts. What libraries round differently stands under ``near``.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.state.data_change import DataChange
from edge_runtime.state.known_samples import KnownData
from edge_runtime.trust.features import readable_share
from edge_runtime.trust.known_networks import known_features
from gkt_core import errors
from gkt_core.bundle.manifest import manifest_sha256
from gkt_core.config.run_config import CODECS, RunConfig
from gkt_core.config.upload_schedule import UploadSchedule
from gkt_core.data.augment import augmented_view, batch_order, view_places
from gkt_core.data.pack import _digests, _held_out, sample_ids
from gkt_core.data.private_data import PrivateData, Samples
from gkt_core.data.reading.images import FITS, fitted_array
from gkt_core.errors import GKTError
from gkt_core.networks import EDGE_LAYOUTS, EXPANSION, STEM_KERNELS, TAP_CHANNELS, EdgeLayout, layout_of
from gkt_core.printable import printable
from gkt_core.rounds.client_part import ClientPart, client_seed
from gkt_core.rounds.client_round import client_batches
from gkt_core.rounds.learning_rate import LearningRate
from gkt_core.wire.codec import decode, encode
from gkt_core.wire.feature_noise import gaussian
from gkt_core.wire.join_link import read_join_link
from gkt_core.wire.protocol import Task, as_client_id, from_json
from gkt_core.wire.shards import ShardKey, SoftLabels, write_feature_shard, write_soft_labels
from tests.edge_runtime.golden.frames import frames

GOLDEN = Path(__file__).with_name("device.json")
CLIENT, CLASSES, SIZE = "client-a", 3, 8


def text(array: NDArray[Any]) -> str:
    """Bytes of an array, as base64."""
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def ids(array: NDArray[np.int64]) -> list[str]:
    return [str(number) for number in array.tolist()]


def levels(*shape: int, step: int = 7919) -> NDArray[np.uint8]:
    """Numbers of 0 to 255 that every machine has alike."""
    count = int(np.prod(shape))
    return ((np.arange(count, dtype=np.int64) * step) % 251).astype(np.uint8).reshape(shape)


def numbers(*shape: int, step: int = 7919) -> NDArray[np.float32]:
    """Floats from -0.5 to 0.5 that every machine has alike."""
    count = int(np.prod(shape))
    return (((np.arange(count, dtype=np.int64) * step) % 1013) / 1013 - 0.5).astype(np.float32).reshape(shape)


def samples(num: int, first: int, step: int) -> Samples:
    ids_ = np.sort((np.arange(num, dtype=np.int64) * 0x1234567890ABCDE + first) & (2**63 - 1))
    return Samples(levels(num, SIZE, SIZE, 3, step=step), (np.arange(num) % CLASSES).astype(np.int64), ids_)


def config(**changes: Any) -> RunConfig:
    return dataclasses.replace(RunConfig(batch_size=4, crop_padding=2, shard_samples=5, rounds=4), **changes)


def part(settings: RunConfig, first_rounds: NDArray[np.int64] | None = None) -> ClientPart:
    data = PrivateData(samples(13, 11, 7919), samples(4, 7, 104729), ("ant", "bee", "cat"))
    return ClientPart(CLIENT, data, settings, CLASSES, first_rounds=first_rounds)


def views() -> list[dict[str, Any]]:
    images, sample_ids_ = levels(5, SIZE, SIZE, 3), np.array([0, 1, 2**62 + 3, -5, 77], np.int64)
    cases = []
    for seed, round_num, padding, flip in (
        (0, 0, 2, True),
        (7, 3, 0, True),
        (2**63 - 1, 2**32 + 5, 1, False),
    ):
        options: dict[str, Any] = {"seed": seed, "round_num": round_num, "crop_padding": padding}
        top, left, flipped = view_places(sample_ids_, horizontal_flip=flip, **options)
        view = augmented_view(images, sample_ids_, horizontal_flip=flip, **options)
        cases.append(
            {
                "seed": str(seed),
                "round_num": str(round_num),
                "crop_padding": padding,
                "horizontal_flip": flip,
                "top": top.tolist(),
                "left": left.tolist(),
                "flip": flipped.tolist(),
                "view": text(view),
            }
        )
    return [{"images": text(images), "sample_ids": ids(sample_ids_), "cases": cases}]


def training() -> list[dict[str, Any]]:
    """The batches of a round: which images, labels, soft labels, alpha; learning rates stand under near."""
    late = np.array([1] * 9 + [3] * 4, np.int64)
    cases = []
    for settings, first_rounds, round_num, teacher in (
        (config(), None, 1, None),
        (config(local_epochs=2, alpha=0.5, lr_schedule="one_cycle"), None, 3, 2),
        (config(local_epochs=2, lr_schedule="cosine_by_step", lr_warmup=0.1), late, 3, 2),
        (config(teacher_view="fresh", direction="none"), None, 2, 1),
    ):
        owner = part(settings, first_rounds)
        known = owner.data.train.sample_ids if first_rounds is None else owner.data.train.sample_ids[:9]
        soft = None if teacher is None else SoftLabels(known[::-1].copy(), numbers(len(known), CLASSES))
        made = list(client_batches(owner, soft, round_num, teacher_round=teacher, learning_rate_scale=0.5))
        cases.append(
            {
                "config": json.dumps(settings.told()),
                "first_rounds": None if first_rounds is None else first_rounds.tolist(),
                "round_num": round_num,
                "teacher_round": teacher,
                "soft_labels": None if soft is None else text(soft.server_logits),
                "batches": [
                    {
                        "images": hashlib.sha256(batch.images.tobytes()).hexdigest(),
                        "labels": batch.labels.tolist(),
                        "server_logits": text(batch.server_logits),
                        "alpha": batch.alpha,
                    }
                    for batch in made
                ],
                "learning_rates": [batch.learning_rate for batch in made],
            }
        )
    return cases


def shards() -> dict[str, Any]:
    shape = (2, 4, 6)
    features = np.maximum(numbers(5, *shape) * 4, 0)
    logits, labels = numbers(5, CLASSES, step=31), np.array([2, 0, 1, 1, 0], np.int64)
    sample_ids_ = np.array([2**62, 4, 900, 5, 0], np.int64)
    key, outside = ShardKey(CLIENT, 3, "train", 7), numbers(2)
    cases = []
    for codec in CODECS:
        encoded = encode(features, codec)
        cases.append(
            {
                "codec": codec,
                "bytes": text(
                    np.frombuffer(
                        write_feature_shard(key, sample_ids_, features, logits, labels, codec), np.uint8
                    )
                ),
                "cropped": text(
                    np.frombuffer(
                        write_feature_shard(key, sample_ids_, features, logits, labels, codec, outside),
                        np.uint8,
                    )
                ),
                "decoded": text(decode(encoded, shape)),
            }
        )
    answer = write_soft_labels(CLIENT, 3, SoftLabels(sample_ids_, logits))
    return {
        "shape": shape,
        "features": text(features),
        "logits": text(logits),
        "labels": labels.tolist(),
        "sample_ids": ids(sample_ids_),
        "outside": text(outside),
        "cases": cases,
        "soft_labels": text(np.frombuffer(answer, np.uint8)),
        "halves": [
            [float(value), int(np.float32(value).astype(np.float16).view(np.uint16))] for value in HALVES
        ],
    }


HALVES = (
    0.0,
    -0.0,
    1.0,
    -2.5,
    65504.0,
    65519.0,
    6.1e-5,
    6.0e-8,
    2.9e-8,
    3.1e-8,
    1.00048828125,
    1.0009765625,
    1.0014648437500,
    0.1,
    2047.5,
    2048.5,
    2049.5,
)


def known_data() -> dict[str, Any]:
    """The hash by which a server knows a device's samples, and ids and parts of what is packed."""
    data = part(config()).data
    known = KnownData(data, np.zeros(0, np.int64), DataChange(), 0)
    images = levels(9, SIZE, SIZE, 3)
    images[4] = images[2]
    digests = _digests(images, bytes(range(32)))
    numbered = sample_ids(digests)
    same = _digests(np.repeat(images[:1], 4, axis=0), bytes(range(32)))
    before = PrivateData(
        Samples(images[:5], np.zeros(5, np.int64), numbered[:5]),
        Samples(images[5:7], np.zeros(2, np.int64), numbered[5:7]),
        ("a", "b"),
    )
    return {
        "samples_sha256": known.samples_sha256(),
        "packed": text(images),
        "owner_key": text(np.arange(32, dtype=np.uint8)),
        "sample_ids": ids(numbered),
        "held_out": _held_out(digests, numbered, 0.3, None).tolist(),
        "held_out_again": _held_out(digests, numbered, 0.3, before).tolist(),
        "held_out_same": _held_out(same, sample_ids(same), 0.3, None).tolist(),
    }


def pictures() -> list[dict[str, Any]]:
    """Pictures scaled to squares of 8 pixels; versions of Pillow differ in which side goes first."""
    cases = []
    for height, width in ((8, 8), (30, 17), (9, 40), (5, 7), (1, 64)):
        picture = levels(1, height, width, 3, step=104729)
        fits = {fit: fitted_array(picture, SIZE, fit).reshape(-1).tolist() for fit in FITS}
        cases.append({"height": height, "width": width, "pixels": text(picture), "fits": fits})
    return cases


JSON_TEXTS = (
    '{"b": [1, 1.0, -0.0, 1e-08, 1E5, 123456789012345678901234567890, 1e16, 123456789.125, 0.0001, 1e22,'
    " 5e-324, 0.00001],"
    ' "a": {"z": null, "\\u00fc\\ud83d\\ude00": true, "\\u0007\\n": "\\u007f/\\\\\\""}, "c": [], "d": {}}',
    '{"x": 100.0, "y": 1.7976931348623157e+308, "e": 12345678901234567.0, "f": -1234567.5}',
)


def links() -> list[dict[str, Any]]:
    token, sha = "0123abcd." + "t" * 43, "sha256:" + "ab" * 32
    whole = f"enroll={token}&bundle={sha}"
    cases = []
    for link in (
        f"gkt+https://h:8080/#{whole}&ca={sha}",
        f"GKT+HTTPS://h:8080/way/#{whole}",
        f"gkt+http://127.0.0.1:5/#{whole}",
        f"gkt+http://[::1]:5/#{whole}",
        f"gkt+http://h/#{whole}&ca={sha}",
        f"https://h/#{whole}",
        f"gkt+https://h/#enroll={token}",
        f"https://gkt.example.org:8443/run/join#{whole}",
        f"HTTP://[::1]:8080/JOIN/#{whole}",
        f"https://h/join?q#{whole}",
        f"https://h/#{whole}",
        f"gkt+https://a@h/#{whole}",
        f"gkt+https://h:0/#{whole}",
        f"gkt+https://h/?q#{whole}",
        f"gkt+https://h/#{whole}&x=1",
        f"gkt+https://h/#{whole}&{whole}",
        "gkt+https:///#" + whole,
        f"gkt+https://h:99999/#{whole}",
        f"gkt+https://h/ #{whole}",
        f"gkt+https://h/#enroll=12.x&bundle={sha}",
        f"gkt+https://h/#enroll={token}&bundle=sha256:AB",
    ):
        try:
            said = dataclasses.asdict(read_join_link(link))
        except GKTError:
            said = {}
        cases.append({"link": link, "said": said})
    return cases


def messages() -> list[dict[str, Any]]:
    task = {
        "action": "wait",
        "round_num": 1,
        "soft_labels_round": 0,
        "retry_after_seconds": 1.5,
        "reason": "a\u001b[2Jb",
    }
    cases = []
    for changes in (
        {},
        {"round_num": -1},
        {"round_num": 1.0},
        {"round_num": 10**7},
        {"retry_after_seconds": 3},
        {"retry_after_seconds": 4000},
        {"retry_after_seconds": "1"},
        {"action": 1},
        {"more": 1},
        {"view_round": 3, "upload_round": 2},
        {"learning_rate_scale": 1e300},
        {"round_num": True},
        {"reason": None},
        {"round_num": 2**70},
    ):
        body = json.dumps(task | changes)
        try:
            said: dict[str, Any] | None = dataclasses.asdict(from_json(Task, body.encode()))
        except GKTError:
            said = None
        cases.append({"body": body, "said": said})
    for body in ('{"action": "wait"}', "[]", "{", '{"a": NaN}', '"x"'):
        cases.append({"body": body, "said": None})
    return cases


def schedules() -> list[dict[str, Any]]:
    return [
        {
            "uploads": each,
            "num_uploads": UploadSchedule.parse(each).num_uploads(9),
            "due": [
                [UploadSchedule.parse(each).is_due(now, last, 0.05) for last in range(4)]
                for now in range(1, 9)
            ],
        }
        for each in ("every", "rounds=1,4,7", "rounds=3", "drift=0.1", "drift=0.05")
    ]


def weights_of(layout: EdgeLayout) -> list[tuple[str, tuple[int, ...], int, int]]:
    """Of each weight of an extractor the name, the shape, and what its numbers are made with."""
    width, filters = TAP_CHANNELS * EXPANSION, TAP_CHANNELS // (2 if layout.is_tied else 1)
    side, stem = STEM_KERNELS[layout.stem_stride], "extractor.stem" if layout.tap_blocks else "extractor"
    layers = {(f"{stem}.conv", f"{stem}.bn"): (filters, 3, side, side)}
    for index in range(layout.tap_blocks):
        name, channels = f"extractor.blocks.{index}", width if index else TAP_CHANNELS
        layers |= {
            (f"{name}.conv1", f"{name}.bn1"): (TAP_CHANNELS, channels, 1, 1),
            (f"{name}.conv2", f"{name}.bn2"): (TAP_CHANNELS, TAP_CHANNELS, 3, 3),
            (f"{name}.conv3", f"{name}.bn3"): (width, TAP_CHANNELS, 1, 1),
            (f"{name}.shortcut.conv", f"{name}.shortcut.bn"): (width, channels, 1, 1),
        }
    if layout.tap_blocks:
        layers["extractor.conv", "extractor.bn"] = (layout.channels, width, 1, 1)
    weights: list[tuple[str, tuple[int, ...], int, int]] = []
    for number, ((conv, norm), shape) in enumerate(layers.items()):
        weights.append((f"{conv}.weight", shape, 7919 + number, 0))
        for place, name in enumerate(("weight", "bias", "running_mean", "running_var")):
            weights.append((f"{norm}.{name}", shape[:1], 31 + place, int(name in ("weight", "running_var"))))
    return weights


@dataclasses.dataclass
class _ManifestLike:
    """What of a manifest an extractor follows from."""

    edge_network: str
    image_size: int
    features: tuple[int, int, int]
    pixel_mean: list[float]
    pixel_std: list[float]


def extractors() -> list[dict[str, Any]]:
    """Some features of each built-in network, and how much of noise can be read off them."""
    cases = []
    for name in EDGE_LAYOUTS:
        layout = layout_of(name)
        assert layout is not None
        shape, weights = layout.feature_shape(16), weights_of(layout)
        values = {key: numbers(*sides, step=step) + np.float32(more) for key, sides, step, more in weights}
        manifest = _ManifestLike(name, 16, shape, [0.4, 0.5, 0.6], [0.2, 0.25, 0.3])
        images = numbers(8, 3, 16, 16, step=271) + np.float32(0.5)
        features = known_features(images, values, manifest)  # type: ignore[arg-type] # what is read of one
        cases.append(
            {
                "network": name,
                "shape": shape,
                "weights": weights,
                "features": features.reshape(-1)[::37].tolist(),
                "readable": readable_share(images, features),
            }
        )
    return cases


def made() -> dict[str, Any]:
    """Everything that stands in the file."""
    trained = training()
    kinds = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, GKTError)]
    return {
        "exit_codes": {each.__name__: each.exit_code for each in kinds},
        "views": views(),
        "client_seeds": [
            [str(seed), name, str(client_seed(seed, name))] for seed, name in ((0, "a"), (2**63 - 1, CLIENT))
        ],
        "orders": [
            [
                num,
                str(seed),
                round_num,
                epoch,
                batch_order(num, seed=seed, round_num=round_num, epoch=epoch).tolist(),
            ]
            for num, seed, round_num, epoch in ((1, 0, 1, 1), (17, 5, 3, 2), (40, 2**63 - 1, 999_999, 1000))
        ],
        "training": [
            {name: value for name, value in case.items() if name != "learning_rates"} for case in trained
        ],
        "shards": shards(),
        "frames": frames(),
        "known_data": known_data(),
        "json": [[each, manifest_sha256(json.loads(each))] for each in JSON_TEXTS],
        "links": links(),
        "messages": messages(),
        "schedules": schedules(),
        "client_ids": [[each, as_client_id(each)] for each in ("photos of ö", "--x", "", "a.b_c", "a/b")],
        "printable": [
            [each, printable(each)] for each in ("a\x1b[2Jb\u202ec\r\n", "grün \U0001f600", "\x7f\u2028")
        ],
        "near": {
            "learning_rates": [case["learning_rates"] for case in trained],
            "schedule": [
                [name, warmup, [LearningRate(1.0, name, warmup).at(step, 10) for step in range(11)]]
                for name in ("constant", "cosine", "cosine_by_step", "one_cycle")
                for warmup in (0.0, 0.25)
            ],
            "noise": [
                [str(number), round_num, gaussian(bytes(range(32)), number, round_num, 7).tolist()]
                for number, round_num in ((0, 1), (-7, 3), (2**63 - 1, 10**6))
            ],
            "pictures": pictures(),
            "extractors": extractors(),
        },
    }


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(made(), indent=1) + "\n", encoding="utf-8")
