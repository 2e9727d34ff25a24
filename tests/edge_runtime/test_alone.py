"""A device's network trained by itself until its validation accuracy stops rising."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edge_runtime.alone import Alone, train_alone
from gkt_core.bundle.manifest import Bundle
from gkt_core.cli import gkt
from gkt_core.config.run_config import RunConfig
from gkt_core.data.private_data import PrivateData, Samples, load_private_data, load_test_data
from gkt_core.errors import DatasetError


def first(samples: Samples, num: int) -> Samples:
    return Samples(samples.images[:num], samples.labels[:num], samples.sample_ids[:num])


@pytest.fixture(scope="module")
def data(digits_split: Path) -> PrivateData:
    whole = load_private_data(digits_split / "clients" / "client-000.npz")
    return replace(whole, train=first(whole.train, 96))


def alone(
    bundle: Bundle, data: PrivateData, split: Path, *, rounds: int | None = None, patience: int = 2
) -> tuple[Alone, list[float]]:
    seen: list[float] = []
    result = train_alone(
        bundle, data, load_test_data(split / "test.npz"), RunConfig(rounds=3, batch_size=32, edge_lr=3e-3),
        client_id="client-000", num_threads=1, rounds=rounds, patience=patience,
        on_round=lambda number, accuracy: seen.append(accuracy),
    )  # fmt: skip
    return result, seen


def test_until_validation_accuracy_stops_rising(
    digits_bundle: Bundle, digits_split: Path, data: PrivateData
) -> None:
    result, seen = alone(digits_bundle, data, digits_split)
    assert result.trained_rounds == len(seen) == result.num_rounds + 2
    assert result.validation_accuracy == max(seen) == seen[result.num_rounds - 1]
    assert max(seen[: result.num_rounds - 1], default=-1.0) < result.validation_accuracy
    # What is tested is the network of that round, not of the last.
    again, _ = alone(digits_bundle, data, digits_split, rounds=result.num_rounds)
    assert again == replace(result, trained_rounds=result.num_rounds)


def test_without_validation_images_it_needs_a_number_of_rounds(
    digits_bundle: Bundle, digits_split: Path, data: PrivateData
) -> None:
    bare = replace(data, validation=first(data.validation, 0))
    with pytest.raises(DatasetError, match=r"client-000 has no validation images .* give --rounds"):
        alone(digits_bundle, bare, digits_split)
    result, _ = alone(digits_bundle, bare, digits_split, rounds=1)
    assert result.num_rounds == result.trained_rounds == 1


@pytest.mark.parametrize(("text", "flip", "padding"), [("", False, 1), ("horizontal_flip = true\n", True, 1)])
def test_the_command_draws_views_that_suit_the_images(
    digits_bundle: Bundle,
    digits_split: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    flip: bool,
    padding: int,
) -> None:
    """Digits of 16 px: a mirrored one is none, and crops by more than a pixel lose much of it."""
    seen: list[RunConfig] = []

    def noted(bundle: Bundle, data: PrivateData, test: Samples, config: RunConfig, **more: Any) -> Alone:
        seen.append(config)
        return Alone(0.5, 1, 1, 0.5, 1)

    monkeypatch.setattr("edge_runtime.alone.train_alone", noted)
    (tmp_path / "run.toml").write_text(text)
    arguments = ["--artifacts", digits_bundle.path, "--data", digits_split / "clients" / "client-000.npz"]
    arguments += ["--test", digits_split / "test.npz", "--config", tmp_path / "run.toml"]
    done = CliRunner().invoke(gkt, ["edge", "train-alone", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert [(each.horizontal_flip, each.crop_padding) for each in seen] == [(flip, padding)]
