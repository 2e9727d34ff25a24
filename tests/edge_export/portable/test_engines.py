"""What both engines must do, and which of them trains."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime import open_engine
from edge_runtime.engines import choice
from edge_runtime.engines.portable import PortableEngine
from gkt_core.bundle.manifest import ENGINE_FILES, Bundle
from gkt_core.errors import ArtifactError, DatasetError
from gkt_core.rounds.engine import DeviceEngine
from tests.edge_export.portable.batches import batch_of

ENGINES = tuple(ENGINE_FILES)


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, digits_bundle: Bundle) -> DeviceEngine:
    return open_engine(
        digits_bundle, checkpoint=None, num_threads=1, learning_rate=1e-3, engine=request.param
    )


def test_a_saved_state_goes_on_bit_for_bit(
    engine: DeviceEngine, digits_bundle: Bundle, tmp_path: Path
) -> None:
    for step in range(3):
        engine.train_step(*batch_of(8, seed=step), 1.0)
    engine.save(tmp_path / "state")
    resumed = open_engine(
        digits_bundle,
        checkpoint=tmp_path / "state",
        num_threads=1,
        learning_rate=1e-3,
        engine=engine.name,
    )
    for step in range(3, 6):
        batch = batch_of(8, seed=step)
        loss, logits = engine.train_step(*batch, 1.0)
        again, same = resumed.train_step(*batch, 1.0)
        assert loss == again and np.array_equal(logits, same)
    ours, theirs = engine.parameters(), resumed.parameters()
    assert all(ours[name].tobytes() == theirs[name].tobytes() for name in ours)
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_the_learning_rate_is_set_for_each_step(engine: DeviceEngine) -> None:
    before = engine.parameters()
    engine.set_learning_rate(0.0)
    engine.train_step(*batch_of(8), 1.0)
    still = engine.parameters()
    assert all(np.array_equal(before[n], still[n]) for n in before if ".running_" not in n)
    assert not np.array_equal(before["extractor.bn.running_mean"], still["extractor.bn.running_mean"])
    engine.set_learning_rate(1e-2)
    engine.train_step(*batch_of(8), 1.0)
    assert not np.array_equal(still["head.fc.weight"], engine.parameters()["head.fc.weight"])


def test_replaced_weights_are_computed_with_and_the_others_stay(engine: DeviceEngine) -> None:
    engine.train_step(*batch_of(8), 1.0)
    before, images = engine.parameters(), batch_of(5)[0]
    engine.predict(images)
    own = {name: value for name, value in before.items() if name.startswith("extractor.")}
    engine.replace({name: value * np.float32(2) for name, value in own.items()})
    after = engine.parameters()
    assert all(np.array_equal(after[name], 2 * value) for name, value in own.items())
    assert all(np.array_equal(after[name], before[name]) for name in before.keys() - own.keys())
    doubled, _ = engine.predict(images)
    engine.replace(own)
    features, logits = engine.predict(images)
    assert not np.allclose(doubled, features)
    loss, _ = engine.train_step(*batch_of(8, seed=1), 1.0)
    assert np.isfinite(loss)
    assert np.isfinite(logits).all()
    with pytest.raises(ArtifactError, match="no tensor of this network"):
        engine.replace({"extractor.bn.bias": np.zeros(3, np.float32)})


def test_predicting_changes_nothing(engine: DeviceEngine) -> None:
    engine.train_step(*batch_of(8), 1.0)
    before = engine.parameters()
    features, logits = engine.predict(batch_of(5)[0])
    assert (features.shape, logits.shape) == ((5, 16, 16, 16), (5, 10))
    assert all(np.array_equal(before[name], value) for name, value in engine.parameters().items())


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda x, y: x.__setitem__((0, 0, 0, 0), np.nan), "images hold NaN"),
        (lambda x, y: x.__setitem__((0, 0, 0, 0), np.inf), "images hold NaN or infinity"),
        (lambda x, y: y.__setitem__(0, 10), "labels run from 0 to 10, the artifacts were made for 0 to 9"),
        (lambda x, y: y.__setitem__(0, -1), "labels run from -1 to"),
    ],
    ids=["nan", "infinity", "label 10", "label -1"],
)
def test_a_bad_batch_is_refused_and_no_state_is_lost(
    engine: DeviceEngine, spoil: Callable[[Any, Any], None], match: str
) -> None:
    images, labels, teacher = batch_of(8)
    labels[1] = 0
    before = engine.parameters()
    spoil(images, labels)
    with pytest.raises(DatasetError, match=match):
        engine.train_step(images, labels, teacher, 1.0)
    assert all(np.array_equal(before[name], value) for name, value in engine.parameters().items())


def test_engines_agree_on_a_curve(digits_bundle: Bundle) -> None:
    """Ten steps from equal weights: as close as two float32 engines are before rounding has grown."""
    curves = []
    for name in ENGINES:
        engine = open_engine(digits_bundle, checkpoint=None, num_threads=1, learning_rate=1e-3, engine=name)
        curves.append([engine.train_step(*batch_of(16, seed=step), 1.0)[0] for step in range(10)])
    assert curves[0] == pytest.approx(curves[1], rel=1e-3)
    assert curves[0][0] == pytest.approx(curves[1][0], rel=1e-6)


def test_a_few_images_train_with_one_thread_from_the_same_state(small_bundle: Bundle) -> None:
    """A engine of two threads has two sessions: what one has learnt, the other goes on with."""
    one, two = (PortableEngine(small_bundle, num_threads=threads) for threads in (1, 2))
    for step, num in enumerate((8, 2, 8, 3)):
        batch = batch_of(num, 8, 3, step)
        losses = [engine.train_step(*batch, 1.0)[0] for engine in (one, two)]
        assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    ours, theirs = one.parameters(), two.parameters()
    assert all(np.allclose(ours[name], theirs[name], atol=1e-3) for name in ours)
    assert not np.array_equal(
        theirs["head.fc.weight"], PortableEngine(small_bundle).parameters()["head.fc.weight"]
    )


def test_the_engine_is_chosen_by_bundle_and_installation(
    digits_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = digits_bundle.manifest
    only = {name: dataclasses.replace(manifest, engines=[name]) for name in ENGINES}
    assert choice.choose_engine(manifest) == "portable"
    assert choice.choose_engine(only["ort_training"]) == "ort_training"
    assert choice.choose_engine(manifest, "ort_training") == "ort_training"
    monkeypatch.setattr(choice, "can_train", lambda: False)
    assert choice.choose_engine(manifest) == "portable"
    with pytest.raises(ArtifactError, match="is for ort_training, installed is portable: export with"):
        choice.choose_engine(only["ort_training"])
    with pytest.raises(ArtifactError, match="wanted is ort_training"):
        choice.choose_engine(manifest, "ort_training")


def test_a_state_of_another_network_is_refused(
    small_bundle: Bundle, digits_bundle: Bundle, tmp_path: Path
) -> None:
    PortableEngine(small_bundle).save(tmp_path / "state")
    with pytest.raises(ArtifactError, match="of another network or optimizer"):
        PortableEngine(digits_bundle, checkpoint=tmp_path / "state")
    (tmp_path / "state").write_bytes((tmp_path / "state").read_bytes()[:-5])
    with pytest.raises(ArtifactError, match="cannot read the training state"):
        PortableEngine(small_bundle, checkpoint=tmp_path / "state")
