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

from gkt_core.errors import ConfigError
from profiling.cli.profile import profile
from profiling.privacy.options import PrivacyOptions
from profiling.privacy.similarity import SIGMA, psnr, ssim
from profiling.privacy.uploaded import as_uploaded
from tests.conftest import ROOT, Gkt

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


def test_features_go_through_the_codec_a_shard_at_a_time() -> None:
    rng = np.random.default_rng(0)
    features = rng.random((70, 4, 8, 8), dtype=np.float32)
    # Each shard has its own scale: an outlier in the second leaves the first alone.
    loud = features.copy()
    loud[69] *= 50
    kept, disturbed = (as_uploaded(each, "uint4", 0.0, spread=1.0, seed=0) for each in (features, loud))
    assert torch.equal(kept[:64], disturbed[:64])
    assert not torch.equal(kept[64:69], disturbed[64:69])
    noisy = as_uploaded(features, "fp32", 0.5, spread=2.0, seed=3)
    assert float((noisy - torch.from_numpy(features)).std()) == pytest.approx(1.0, rel=0.02)
    assert torch.equal(noisy, as_uploaded(features, "fp32", 0.5, spread=2.0, seed=3))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("privacy")
    arguments = ["privacy", "--image-size", "8", "--limit", "400", "--epochs", "5", "--victims", "60"]
    arguments += ["--noise", "0.5", "--noise", "5", "--codec", "fp32", "--codec", "uint4"]
    arguments += [part for name in ("p.json", "p.html", "p.png") for part in ("--out", str(folder / name))]
    result = CliRunner().invoke(profile, arguments, catch_exceptions=False, env={"COLUMNS": "120"})
    assert result.exit_code == 0
    assert "Feature maps AND LABELS leave the device" in result.stdout
    return folder


def test_features_give_the_image_away(written: Path) -> None:
    document = json.loads((written / "p.json").read_text())
    found = {each["name"]: each for each in document["conditions_attacked"]}
    assert list(found) == ["fp32", "uint4", "fp32, noise 0.5", "fp32, noise 5"]
    nothing = document["without_features"]
    assert found["fp32"]["ssim_median"] > nothing["ssim_median"] + 0.3
    assert found["fp32"]["psnr_median_db"] > nothing["psnr_median_db"] + 4
    # A codec of four bits hides next to nothing, a lot of noise hides something.
    assert found["uint4"]["ssim_median"] > found["fp32"]["ssim_median"] - 0.05
    assert found["fp32, noise 5"]["ssim_median"] < found["fp32"]["ssim_median"] - 0.05
    assert found["fp32"]["feature_error"] == 0 < found["uint4"]["feature_error"] < 0.2
    for each in document["conditions_attacked"]:
        assert each["ssim_median"] <= each["ssim_p90"] <= 1
    for key in {*document, *document["conditions_attacked"][0]}:
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
    arguments += ["--image-size", "16", "--victims", "40", "--codec", "uint8", "--noise", "3", "--json"]
    result = CliRunner().invoke(profile, arguments, catch_exceptions=False)
    document = json.loads(result.stdout)
    plain, noisy = document["conditions_attacked"]
    assert plain["ssim_median"] > max(noisy["ssim_median"], document["without_features"]["ssim_median"]) + 0.1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"noise": (-1.0,)}, "--noise is -1.0"),
        ({"codecs": ("jpeg",)}, "--codec is 'jpeg', expected one of"),
        ({"num_victims": 9}, "--victims is 9, expected at least 10"),
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
