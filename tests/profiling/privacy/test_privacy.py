"""``gkt profile privacy``: the measures of likeness, the attack, and that noise hinders it."""

from __future__ import annotations

import base64
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from gkt_core.errors import ConfigError
from gkt_core.nn import build_edge_network
from profiling.cli.profile import profile
from profiling.privacy.decoders import LARGE, SMALL, Decoder
from profiling.privacy.options import PrivacyOptions
from profiling.privacy.recognising import identified, label_accuracy
from profiling.privacy.searching import Prior, best_prior, search
from profiling.privacy.similarity import SIGMA, gmsd, psnr, ssim
from profiling.privacy.uploaded import Upload, as_uploaded
from tests.conftest import ROOT, Gkt

NO_PRIOR = Prior(smoothness=0.0, nearness=0.0)
README = (ROOT / "docs" / "results-format.md").read_text(encoding="utf-8")


def images(seed: int, num: int = 3, size: int = 16) -> torch.Tensor:
    return torch.rand(num, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def plain_ssim(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any], side: int) -> float:
    """Eq. 13 of Wang et al., one window after the other."""
    offsets = np.arange(side) - (side - 1) / 2
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None, :] ** 2) / (2 * SIGMA**2))
    window /= window.sum()
    found = []
    for channel in range(a.shape[0]):
        for y in range(a.shape[1] - side + 1):
            for x in range(a.shape[2] - side + 1):
                p, q = (each[channel, y : y + side, x : x + side] for each in (a, b))
                mean_p, mean_q = (window * p).sum(), (window * q).sum()
                var_p, var_q = (window * (p - mean_p) ** 2).sum(), (window * (q - mean_q) ** 2).sum()
                both = (window * (p - mean_p) * (q - mean_q)).sum()
                found.append(
                    (2 * mean_p * mean_q + 1e-4)
                    * (2 * both + 9e-4)
                    / ((mean_p**2 + mean_q**2 + 1e-4) * (var_p + var_q + 9e-4))
                )
    return float(np.mean(found))


@pytest.mark.parametrize(("size", "side"), [(16, 11), (8, 7), (11, 11), (12, 11)])
def test_ssim_is_the_formula(size: int, side: int) -> None:
    a = images(1, size=size)
    b = 0.7 * a + 0.3 * images(2, size=size)
    for row, value in enumerate(ssim(a, b)):
        assert float(value) == pytest.approx(plain_ssim(a[row].numpy(), b[row].numpy(), side), abs=1e-9)


@given(seed=st.integers(0, 10**6), noise=st.floats(0.01, 0.5))
@settings(max_examples=10)
def test_likeness_in_order(seed: int, noise: float) -> None:
    a = images(seed)
    other = images(seed + 1)
    less, more = a + noise / 4 * (other - 0.5), a + noise * (other - 0.5)
    assert torch.allclose(ssim(a, a), torch.ones(3, dtype=torch.float64))
    assert torch.allclose(ssim(a, less), ssim(less, a))
    assert (ssim(a, less) > ssim(a, more)).all()
    assert (psnr(a, less) > psnr(a, more)).all()


def test_psnr_by_hand() -> None:
    a = torch.zeros(2, 3, 8, 8)
    assert psnr(a, a + 0.1) == pytest.approx([20.0, 20.0], abs=1e-4)
    assert torch.isinf(psnr(a, a)).all()


def test_ssim_is_scikit_images() -> None:
    a = images(1, num=4, size=32)
    b = (0.8 * a + 0.2 * images(2, num=4, size=32)).clamp(0, 1)
    options = {"gaussian_weights": True, "sigma": SIGMA, "use_sample_covariance": False}
    for row, value in enumerate(ssim(a, b)):
        theirs = structural_similarity(
            a[row].numpy(), b[row].numpy(), channel_axis=0, data_range=1.0, **options
        )
        assert float(value) == pytest.approx(theirs, abs=1e-9)


def test_gmsd_is_the_formula() -> None:
    a = images(1, size=16)
    b = (0.6 * a + 0.4 * images(2, size=16)).clamp(0, 1)
    assert gmsd(a, a) == pytest.approx([0.0] * 3, abs=1e-12)
    for row, value in enumerate(gmsd(a, b)):
        halves = []
        for each in (a[row].numpy(), b[row].numpy()):
            light = 255 * (0.2989 * each[0] + 0.5870 * each[1] + 0.1140 * each[2])
            halves.append(light.reshape(8, 2, 8, 2).mean(axis=(1, 3)))
        similar = []
        for y in range(1, 7):
            for x in range(1, 7):
                sizes = []
                for light in halves:
                    part = light[y - 1 : y + 2, x - 1 : x + 2]
                    across = (part[:, 0] - part[:, 2]).sum() / 3
                    down = (part[0] - part[2]).sum() / 3
                    sizes.append(np.hypot(across, down))
                similar.append((2 * sizes[0] * sizes[1] + 170) / (sizes[0] ** 2 + sizes[1] ** 2 + 170))
        assert float(value) == pytest.approx(float(np.std(similar)), abs=1e-9)


def uploaded(features: NDArray[np.float32], codec: str, noise: float, spread: float, seed: int) -> Upload:
    logits = np.zeros((len(features), 10), np.float32)
    return as_uploaded(features, logits, codec, noise, spread=spread, seed=seed)


def test_features_go_through_the_codec_a_shard_at_a_time() -> None:
    rng = np.random.default_rng(0)
    features = rng.random((70, 4, 8, 8), dtype=np.float32)
    # Each shard has its own scale: an outlier in the second leaves the first alone.
    loud = features.copy()
    loud[69] *= 50
    kept, disturbed = (uploaded(each, "uint4", 0.0, 1.0, 0).features for each in (features, loud))
    assert torch.equal(kept[:64], disturbed[:64])
    assert not torch.equal(kept[64:69], disturbed[64:69])
    noisy = uploaded(features, "fp32", 0.5, 2.0, 3).features
    assert float((noisy - torch.from_numpy(features)).std()) == pytest.approx(1.0, rel=0.02)
    assert torch.equal(noisy, uploaded(features, "fp32", 0.5, 2.0, 3).features)


def test_bytes_are_those_of_the_wire() -> None:
    features = np.random.default_rng(0).random((64, 4, 8, 8), dtype=np.float32)
    plain, packed = (uploaded(features, codec, 0.0, 1.0, 0).bytes_per_sample for codec in ("fp32", "uint2"))
    # Random features cannot be made smaller: 256 of four bytes, or of two bits, beside logits, label and id.
    assert 1024 * 0.8 < plain < 1024 + 80
    assert 64 <= packed < 64 + 80


@pytest.mark.parametrize(("channels", "stride"), [(16, 1), (16, 2), (16, 4), (8, 4)])
def test_the_large_decoder_is_ten_times_the_small_one(channels: int, stride: int) -> None:
    sizes = []
    for size in (SMALL, LARGE):
        decoder = Decoder(channels, stride, size)
        sizes.append(sum(each.numel() for each in decoder.parameters()))
        assert decoder(torch.zeros(2, channels, 8, 8)).shape == (2, 3, 8 * stride, 8 * stride)
    assert sizes[1] >= 10 * sizes[0]


def test_the_search_ends_at_the_image_where_the_features_are_all_of_it() -> None:
    """A stem without stride has more numbers than the image."""
    victims = images(5, num=4, size=8).float()
    # Not the middle of all values: there a fresh stem gives zeros, behind which nothing is felt.
    start = torch.full_like(victims, 0.4)
    network = build_edge_network("resnet8", 10, seed=0).eval()
    with torch.no_grad():
        wanted = network(victims)[0]
    reached = search(network, wanted, start, NO_PRIOR, steps=150)
    assert float(ssim(victims, reached).min()) > 0.99
    assert float(reached.min()) >= 0
    assert float(reached.max()) <= 1
    assert all(each.requires_grad for each in network.parameters())


def test_the_search_finds_an_image_of_the_same_features_behind_a_narrow_tap() -> None:
    victims = images(5, num=4, size=8).float()
    network = build_edge_network("resnet8-8x8x8", 10, seed=0).eval()
    with torch.no_grad():
        wanted = network(victims)[0]
        start = torch.full_like(victims, 0.4)
        before = (network(start)[0] - wanted).square().mean()
        after = (network(search(network, wanted, start, NO_PRIOR, steps=60))[0] - wanted).square().mean()
    assert float(after) < 0.1 * float(before)


def test_a_prior_is_chosen_that_rebuilds_known_images_best() -> None:
    known = images(6, num=4, size=8).float()
    network = build_edge_network("resnet8", 10, seed=0).eval()
    with torch.no_grad():
        features = network(known)[0]
    start = torch.full_like(known, 0.4)
    bad = Prior(smoothness=10.0, nearness=100.0)
    for priors in ((NO_PRIOR, bad), (bad, NO_PRIOR)):
        assert best_prior(network, features, start, known, steps=30, priors=priors) is NO_PRIOR


def test_an_upload_is_picked_out_of_others() -> None:
    gallery = torch.rand(1200, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    own = torch.tensor([3, 499, 500, 1199])
    assert identified(gallery[own] + 0.01, gallery, own) == 1.0
    assert identified(gallery[own], gallery, own.roll(1)) == 0.0
    noise = 5 * torch.randn(4, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    assert identified(gallery[own] + noise, gallery, own) < 1.0


def test_labels_are_told_where_features_say_them_and_not_where_they_do_not() -> None:
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(300) % 3
    nothing = torch.rand(300, 4, 4, 4, generator=draw)
    telling = nothing + labels.view(-1, 1, 1, 1).float()
    accuracies = [
        label_accuracy(each[:200], labels[:200], each[200:], labels[200:], num_classes=3, epochs=8, seed=0)
        for each in (telling, nothing)
    ]
    assert accuracies[0] > 0.9 and accuracies[1] < 0.6


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("privacy")
    arguments = ["privacy", "--image-size", "8", "--limit", "400", "--epochs", "4", "--victims", "40"]
    arguments += ["--noise", "5", "--codec", "fp32", "--codec", "uint4", "--steps", "30"]
    arguments += [part for name in ("p.json", "p.html", "p.png") for part in ("--out", str(folder / name))]
    result = CliRunner().invoke(profile, arguments, catch_exceptions=False, env={"COLUMNS": "120"})
    assert result.exit_code == 0
    assert "Feature maps AND LABELS leave the device" in result.stdout
    return folder


def test_features_give_the_image_away(written: Path) -> None:
    document = json.loads((written / "p.json").read_text())
    found = {each["name"]: each for each in document["conditions_attacked"]}
    assert list(found) == ["fp32", "uint4", "fp32, noise 5"]
    nothing = document["without_features"]
    assert found["fp32"]["ssim_median"] > nothing["ssim_median"] + 0.3
    assert found["fp32"]["psnr_median_db"] > nothing["psnr_median_db"] + 4
    # A codec of four bits hides next to nothing, a lot of noise hides something.
    assert found["uint4"]["ssim_median"] > found["fp32"]["ssim_median"] - 0.05
    assert found["fp32, noise 5"]["ssim_median"] < found["fp32"]["ssim_median"] - 0.05
    assert found["fp32"]["feature_error"] == 0 < found["uint4"]["feature_error"] < 0.2
    for each in document["conditions_attacked"]:
        assert each["ssim_median"] <= each["ssim_p90"] <= 1
        reached = {name: values["ssim_median"] for name, values in each["attackers"].items()}
        assert list(reached) == ["small", "large", "search"]
        # What is said of a condition is what its strongest attacker reached.
        assert each["ssim_median"] == max(reached.values()) == reached[each["strongest"]]
    assert found["fp32"]["attackers"]["search"]["psnr_median_db"] > 25
    assert found["fp32"]["identified"] == 1.0
    first = document["conditions_attacked"][0]
    for key in {*document, *first, *first["attackers"]["small"]}:
        assert re.search(rf"`{key}`", README), key


def test_the_picture_shows_ten_images(written: Path) -> None:
    document = json.loads((written / "p.json").read_text())
    pictures = document["pictures"]
    assert list(pictures["rgb_base64"]) == [
        "original", *(each["name"] for each in document["conditions_attacked"]),
    ]  # fmt: skip
    for data in pictures["rgb_base64"].values():
        assert len(base64.b64decode(data)) == 10 * pictures["image_size"] ** 2 * 3
    assert (written / "p.png").read_bytes().startswith(b"\x89PNG")
    assert (written / "p.html").read_text().count("data:image/svg+xml;base64,") == 1


@pytest.mark.system
def test_real_images_are_given_away_too(tmp_path: Path) -> None:
    folder = os.environ.get("GKT_TEST_DATA")
    if not folder:
        pytest.skip("GKT_TEST_DATA is not set: no real CIFAR-10 to attack")
    arguments = ["privacy", "--dataset", str(Path(folder) / "cifar10.npz"), "--limit", "200", "--epochs", "5"]
    arguments += ["--victims", "20", "--codec", "uint4", "--noise", "3", "--steps", "60", "--json"]
    arguments += [
        "--model",
        "resnet8",
        "--model",
        "resnet8-8x8x8",
        "--attacker",
        "small",
        "--attacker",
        "search",
    ]
    result = CliRunner().invoke(profile, arguments, catch_exceptions=False)
    document = json.loads(result.stdout)
    stem, noisy, narrow, _ = document["conditions_attacked"]
    nothing = document["without_features"]["ssim_median"]
    assert stem["name"] == "resnet8, uint4" and narrow["name"] == "resnet8-8x8x8, uint4"
    assert stem["ssim_median"] > noisy["ssim_median"] + 0.1
    # What is narrower costs fewer bytes and shows less.
    assert stem["ssim_median"] > narrow["ssim_median"] + 0.2 > nothing
    assert stem["bytes_per_sample"] > 5 * narrow["bytes_per_sample"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"noise": (-1.0,)}, "--noise is -1.0"),
        ({"codecs": ("jpeg",)}, "--codec is 'jpeg', expected one of"),
        ({"num_victims": 9}, "--victims is 9, expected at least 10"),
        ({"attackers": ("oracle",)}, "--attacker is 'oracle', expected one of"),
        ({"networks": ("resnet9",)}, "--model is 'resnet9', expected one of"),
        ({"epochs": 0}, "--epochs is 0"),
    ],
)
def test_options_that_measure_nothing_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PrivacyOptions(**values)


def test_bad_input_ends_with_exit_code_2(gkt: Gkt, tmp_path: Path) -> None:
    done = gkt("profile", "privacy", "--dataset", "missing.npz")
    assert done.returncode == 2, done.stderr
    assert "missing.npz" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
