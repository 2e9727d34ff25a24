"""Splitting a dataset from Python."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gkt_core.data.datasets import load_dataset
from gkt_core.data.private_data import load_private_data
from gkt_core.data.split import SplitOptions, split_dataset
from gkt_core.errors import ConfigError


def test_pretraining_images_are_nobodys(tmp_path: Path) -> None:
    options = SplitOptions(3, "iid", 0.5, 0.1, 0, pretraining_share=0.2)
    dataset = load_dataset("digits", limit=200)
    description = split_dataset(dataset, options, tmp_path / "split")
    assert description["num_pretraining_examples"] == 40
    owned: set[int] = set()
    for client in description["clients"]:
        private = load_private_data(tmp_path / "split" / client["file"])
        owned |= set(private.train.sample_ids.tolist()) | set(private.validation.sample_ids.tolist())
    assert len(owned) == 160
    with np.load(tmp_path / "split" / description["pretraining_file"]) as held_back:
        rows = [int(np.flatnonzero(dataset.sample_ids == number)[0]) for number in owned]
        owned_images = {dataset.x_train[row].tobytes() for row in rows}
        assert len(held_back["labels"]) == 40
        assert not owned_images & {image.tobytes() for image in held_back["images"]}
    with pytest.raises(ConfigError, match="--pretraining-share is 1"):
        split_dataset(dataset, SplitOptions(3, "iid", 0.5, 0.1, 0, pretraining_share=1.0), tmp_path / "other")
