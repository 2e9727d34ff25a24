"""Data that changed since the last start: each kind is named, and each sample goes under an id of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_runtime.state.data_change import DataChange
from edge_runtime.state.known_samples import SAMPLES_NAME, KnownData, take_up
from edge_runtime.state.state_dir import DeviceState, KeptUpload, StateDir
from gkt_core.data.private_data import PrivateData, Samples
from gkt_core.errors import ArtifactError
from gkt_core.rounds.client_round import LocalProgress
from tests.server_app.server_fixtures import private_data

BEFORE = private_data(1)
OTHER = private_data(2)
NUM = 17


def begun(folder: Path, data: PrivateData = BEFORE) -> Path:
    """The folder of a device that trained one round with these data."""
    start(folder, data, trained_round=0)
    return folder


def start(folder: Path, data: PrivateData, *, trained_round: int, **state: Any) -> KnownData:
    with contextlib.closing(StateDir(folder)) as opened:
        known, _ = take_up(opened, data, DeviceState("run", "client-a", trained_round, **state))
    return known


def of(part: Samples, rows: NDArray[Any] | slice) -> Samples:
    return Samples(part.images[rows], part.labels[rows], part.sample_ids[rows])


def joined(*parts: Samples) -> Samples:
    ids = np.concatenate([part.sample_ids for part in parts])
    both = Samples(
        np.concatenate([part.images for part in parts]), np.concatenate([part.labels for part in parts]), ids
    )
    return of(both, np.argsort(ids))


def trained_on(samples: Samples) -> PrivateData:
    return PrivateData(samples, BEFORE.validation, BEFORE.class_names)


def more() -> PrivateData:
    new = dataclasses.replace(OTHER.train, sample_ids=OTHER.train.sample_ids + 1)
    return trained_on(joined(BEFORE.train, of(new, slice(4))))


def fewer() -> PrivateData:
    return trained_on(of(BEFORE.train, slice(8)))


def other_images() -> PrivateData:
    return PrivateData(
        dataclasses.replace(OTHER.train, sample_ids=BEFORE.train.sample_ids),
        dataclasses.replace(OTHER.validation, sample_ids=BEFORE.validation.sample_ids),
        BEFORE.class_names,
    )


def relabelled() -> PrivateData:
    labels = BEFORE.train.labels.copy()
    labels[:3] = (labels[:3] + 1) % 3
    return trained_on(dataclasses.replace(BEFORE.train, labels=labels))


def other_file() -> PrivateData:
    train, validation = OTHER.train, OTHER.validation
    return PrivateData(
        dataclasses.replace(train, sample_ids=train.sample_ids + 1),
        dataclasses.replace(validation, sample_ids=validation.sample_ids + 1),
        BEFORE.class_names,
    )


def to_validation() -> PrivateData:
    moved = of(BEFORE.train, slice(2))
    return PrivateData(of(BEFORE.train, slice(2, None)), joined(BEFORE.validation, moved), BEFORE.class_names)


def to_train() -> PrivateData:
    moved = of(BEFORE.validation, slice(2))
    return PrivateData(joined(BEFORE.train, moved), of(BEFORE.validation, slice(2, None)), BEFORE.class_names)


@pytest.mark.parametrize(
    ("changed", "expected", "words", "num_untaught"),
    [
        (more, DataChange(kept=NUM, added=4), "4 samples new: trained on for a round without a teacher", 4),
        (fewer, DataChange(kept=NUM - 4, removed=4), "4 samples gone: forgotten", 0),
        (other_images, DataChange(exchanged=NUM), "17 samples with another image under their old id", 12),
        (relabelled, DataChange(kept=NUM - 3, relabelled=3), "3 samples with another label", 3),
        (other_file, DataChange(added=NUM, removed=NUM), "if this is another device's file, stop", 12),
        (
            to_validation,
            DataChange(kept=NUM - 2, moved_to_validation=2),
            "2 samples that were trained on are for validation now",
            0,
        ),
        (
            to_train,
            DataChange(kept=NUM - 2, moved_to_train=2),
            "2 samples that were for validation:",
            2,
        ),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_each_kind_is_named_and_what_is_new_has_no_teacher_for_a_round(
    tmp_path: Path,
    changed: Callable[[], PrivateData],
    expected: DataChange,
    words: str,
    num_untaught: int,
) -> None:
    folder, data = begun(tmp_path / "state"), changed()
    known = start(folder, data, trained_round=3)
    assert known.change == expected
    text = "\n".join(known.change.lines())
    assert words in text and f"as they were: {expected.kept} samples" in text
    assert int((known.first_rounds == 4).sum()) == num_untaught
    assert int((known.first_rounds == 1).sum()) == len(data.train) - num_untaught
    # At the next start nothing has changed, and what was new keeps the round that it came in.
    again = start(folder, data, trained_round=5)
    assert not again.change and list(again.change.lines()) == []
    assert again.first_rounds.tolist() == known.first_rounds.tolist()
    assert again.samples_sha256() == known.samples_sha256()


def sent(known: KnownData) -> dict[int, tuple[bytes, int]]:
    """What the server would see under each id: which image, with which label."""
    parts = (known.data.train, known.data.validation)
    return {
        number: (image.tobytes(), label)
        for part in parts
        for number, image, label in zip(
            part.sample_ids.tolist(), part.images, part.labels.tolist(), strict=True
        )
    }


def test_an_id_means_one_image_with_one_label_for_the_whole_run(tmp_path: Path) -> None:
    """Through changes of every kind, back and forth, an id never comes to mean something else."""
    meanings: dict[int, tuple[bytes, int]] = {}
    folder = begun(tmp_path / "state")
    every = (lambda: BEFORE, more, other_images, relabelled, fewer, to_train, other_file, to_validation)
    for trained_round, changed in enumerate((*every, *reversed(every), other_images, relabelled, more)):
        data = changed()
        known = start(folder, data, trained_round=trained_round)
        now = sent(known)
        assert len(now) == len(data.train) + len(data.validation), "two samples under one id"
        assert all(meanings.setdefault(number, meaning) == meaning for number, meaning in now.items())
        assert (np.diff(known.data.train.sample_ids) > 0).all()
        assert sorted(meaning for meaning in now.values()) == sorted(
            (image.tobytes(), int(label))
            for part in (data.train, data.validation)
            for image, label in zip(part.images, part.labels, strict=True)
        )


def test_the_same_data_keep_their_ids_and_take_no_memory_twice(tmp_path: Path) -> None:
    known = start(begun(tmp_path / "state"), BEFORE, trained_round=1)
    assert known.data.train is BEFORE.train and known.data.validation is BEFORE.validation


def test_other_samples_have_another_hash_and_a_moved_one_too(tmp_path: Path) -> None:
    hashes = {start(begun(tmp_path / "same"), BEFORE, trained_round=1).samples_sha256()}
    for changed in (more, fewer, other_images, relabelled, other_file, to_train, to_validation):
        folder = begun(tmp_path / changed.__name__)
        hashes.add(start(folder, changed(), trained_round=1).samples_sha256())
    assert len(hashes) == 8


def test_a_round_under_way_begins_anew_and_its_weights_stay(tmp_path: Path) -> None:
    folder = begun(tmp_path / "state")
    state = DeviceState(
        "run", "client-a", 1, engine="portable", partial=LocalProgress(5), partial_round=2, partial_teacher=1
    )
    with contextlib.closing(StateDir(folder)) as opened:
        opened.save(state, lambda path: path.touch())
        _, same = take_up(opened, BEFORE, state)
        assert same == state
        _, changed = take_up(opened, fewer(), state)
        assert changed.partial_teacher == -1, "no round's place any more"
        # The file that holds the weights is still found, also by a start after this one.
        assert opened.checkpoint_path(changed) == opened.checkpoint_path(state)
        assert opened.checkpoint_path(changed).exists()
        assert opened.state("run", "client-a") == changed


def test_killed_before_the_samples_are_noted_the_change_is_seen_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = begun(tmp_path / "state")
    state = DeviceState("run", "client-a", 1, partial=LocalProgress(5), partial_round=2, partial_teacher=1)

    def killed(path: Path, data: bytes, *, mode: int) -> None:
        raise KeyboardInterrupt

    with contextlib.closing(StateDir(folder)) as opened:
        opened.save(state, lambda path: path.touch())
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr("edge_runtime.state.known_samples.write_atomically", killed)
            take_up(opened, fewer(), state)
        assert json.loads((folder / "state.json").read_text())["partial_teacher"] == -1
        known, _ = take_up(opened, fewer(), opened.state("run", "client-a"))
    assert known.change.removed == 4


def test_a_folder_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    """It says nothing of its samples: they are taken to be those that it began with."""
    known = start(tmp_path / "state", BEFORE, trained_round=7)
    assert not known.change and set(known.first_rounds.tolist()) == {1}
    assert start(tmp_path / "state", more(), trained_round=7).change.added == 4


def test_how_much_an_upload_can_have_held(tmp_path: Path) -> None:
    """All that there ever was, whatever became of it: what is answered may be of any earlier start."""
    folder = begun(tmp_path / "state")
    for changed, num_ever in ((fewer, NUM), (other_images, NUM), (more, NUM + 4), (other_file, 2 * NUM)):
        known = start(folder, changed(), trained_round=1)
        assert [known.most_uploaded(number) for number in (1, 2)] == [num_ever] * 2
    # An earlier version noted nothing: not known of its rounds, also at later starts.
    for trained_round in (7, 8):
        known = start(tmp_path / "earlier", fewer(), trained_round=trained_round)
        assert [known.most_uploaded(number) for number in (7, 8)] == [None, NUM - 4]
    with np.load(tmp_path / "state" / SAMPLES_NAME) as archive:
        without = {name: archive[name] for name in archive if name != "unknown_rounds"}
    np.savez(tmp_path / "state" / SAMPLES_NAME, **without)
    assert start(tmp_path / "state", BEFORE, trained_round=9).most_uploaded(1) == 2 * NUM


def test_a_damaged_note_is_refused_by_name(tmp_path: Path) -> None:
    folder = begun(tmp_path / "state")
    (folder / SAMPLES_NAME).write_bytes(b"no")
    with pytest.raises(ArtifactError, match=r"samples\.npz cannot be read: .* remove .*state to begin anew"):
        start(folder, BEFORE, trained_round=1)
    np.savez(folder / SAMPLES_NAME, file_ids=np.arange(3))
    with pytest.raises(ArtifactError, match="has no sent_ids"):
        start(folder, BEFORE, trained_round=1)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_what_a_device_keeps_is_its_owners_alone(tmp_path: Path) -> None:
    folder = begun(tmp_path / "state")
    with contextlib.closing(StateDir(folder)) as opened:
        opened.save(DeviceState("run", "client-a", 1), lambda path: path.touch())
        opened.keep_upload(1, KeptUpload({"weight": np.zeros(3, np.float32)}, None, ""))
    kept = {path.name: path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()}
    ours = {
        name: mode for name, mode in kept.items() if name in (SAMPLES_NAME, "state.json") or "upload" in name
    }
    assert len(ours) >= 3 and set(ours.values()) == {0o600}, kept
