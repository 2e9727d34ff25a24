"""The server's view of all uploads: canonical, keyed by sample, and never in memory as a whole."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gkt_core.errors import ShardError
from gkt_core.rounds.client_shards import Extracted
from gkt_core.rounds.feature_source import ShardSource, split_by_client
from gkt_core.wire.shards import ShardKey, ShardSpec, write_feature_shard

CLASSES = 4
SPEC = ShardSpec("fp32", (16, 16, 16), CLASSES, 64)


def extracted(client_id: str, index: int, sample_ids: NDArray[np.signedinteger], seed: int) -> Extracted:
    rng = np.random.default_rng(seed)
    num = len(sample_ids)
    return Extracted(
        ShardKey(client_id, 1, "train", index),
        sample_ids.astype(np.int64),
        rng.standard_normal((num, 16, 16, 16)).astype(np.float32),
        rng.standard_normal((num, CLASSES)).astype(np.float32),
        rng.integers(0, CLASSES, num),
    )


def store(folder: Path, parts: list[Extracted]) -> list[tuple[ShardKey, Path]]:
    files = []
    for part in parts:
        path = folder / f"{part.key.client_id}-{part.key.index}"
        path.write_bytes(
            write_feature_shard(
                part.key, part.sample_ids, part.features, part.client_logits, part.labels, "fp32"
            )
        )
        files.append((part.key, path))
    return files


@pytest.fixture
def parts() -> list[Extracted]:
    ids = np.random.default_rng(0).permutation(200)
    return [
        extracted("b", 0, ids[:30], 1),
        extracted("a", 1, ids[30:47], 2),
        extracted("a", 0, ids[47:90], 3),
        extracted("c", 0, ids[:5], 4),
    ]


def test_order_is_canonical_however_shards_arrive(parts: list[Extracted], tmp_path: Path) -> None:
    files = store(tmp_path, parts)
    rows = np.random.default_rng(1).permutation(95)[:40]
    first = ShardSource.from_files(files, SPEC)
    for order in ([3, 2, 1, 0], [1, 3, 0, 2]):
        other = ShardSource.from_files([files[i] for i in order], SPEC)
        assert np.array_equal(first.sample_ids, other.sample_ids)
        assert np.array_equal(first.owners, other.owners)
        assert np.array_equal(first.gather(rows).features, other.gather(rows).features)
    assert list(first.client_ids) == ["a", "b", "c"]
    keys = list(zip(first.owners.tolist(), first.sample_ids.tolist(), strict=True))
    assert keys == sorted(keys)


def test_gather_gives_each_rows_own_sample(parts: list[Extracted], tmp_path: Path) -> None:
    source = ShardSource.from_files(store(tmp_path, parts), SPEC)
    expected = {
        (part.key.client_id, int(part.sample_ids[i])): (
            part.features[i],
            part.client_logits[i],
            part.labels[i],
        )
        for part in parts
        for i in range(len(part.labels))
    }
    rows = np.random.default_rng(2).permutation(len(source))
    batch = source.gather(rows)
    for place, row in enumerate(rows):
        owner = source.client_ids[source.owners[row]]
        features, logits, label = expected[owner, int(source.sample_ids[row])]
        assert np.array_equal(batch.features[place], features)
        assert np.array_equal(batch.client_logits[place], logits)
        assert batch.labels[place] == label


def test_soft_labels_go_back_to_their_devices(parts: list[Extracted], tmp_path: Path) -> None:
    source = ShardSource.from_files(store(tmp_path, parts), SPEC)
    logits = np.arange(len(source) * CLASSES, dtype=np.float32).reshape(-1, CLASSES)
    returned = split_by_client(source, logits)
    assert {name: len(labels.sample_ids) for name, labels in returned.items()} == {"a": 60, "b": 30, "c": 5}
    for number, name in enumerate(source.client_ids):
        for row in np.flatnonzero(source.owners == number):
            (found,) = returned[name].for_samples(source.sample_ids[row : row + 1])
            assert np.array_equal(found, logits[row])


def test_a_sample_sent_twice_is_refused(tmp_path: Path) -> None:
    twice = [extracted("a", 0, np.arange(5), 1), extracted("a", 1, np.arange(4, 9), 2)]
    with pytest.raises(ShardError, match="a sent sample 4 twice"):
        ShardSource.from_files(store(tmp_path, twice), SPEC)
    with pytest.raises(ShardError, match="no shards"):
        ShardSource.from_files([], SPEC)


def test_features_stay_on_disk(tmp_path: Path) -> None:
    """An epoch over 42 MB of features allocates a batch at a time, not the features."""
    ids = np.arange(40 * 64).reshape(40, 64)
    files = store(tmp_path, [extracted("a", n, ids[n], n) for n in range(40)])
    total = sum(path.stat().st_size for _, path in files)
    assert total > 40e6
    tracemalloc.start()
    try:
        source = ShardSource.from_files(files, SPEC)
        for rows in np.array_split(np.random.default_rng(0).permutation(len(source)), 40):
            source.gather(rows)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < total / 8
