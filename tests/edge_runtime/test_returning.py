"""Devices that go back with a server that came back from a backup."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.returning import go_back, is_ahead
from edge_runtime.state.past_rounds import PastRounds
from edge_runtime.state.state_dir import DeviceState, KeptUpload, StateDir
from gkt_core.rounds.client_round import LocalProgress
from gkt_core.wire.protocol import Task

FIVE = DeviceState("run-1", "client-a", 5, loss=0.5, engine="portable")


def task(round_num: int, answered: int = 0, action: str = "train") -> Task:
    return Task(action, round_num, answered, 0.0, "")


def writing(data: bytes) -> Callable[[Path], None]:
    """Weights that are these bytes."""

    def write(path: Path) -> None:
        path.write_bytes(data)

    return write


def after_rounds(path: Path, most_bytes: int = 1000) -> StateDir:
    """A folder after round 5 and some steps of round 6, with weights that say of which round they are."""
    folder = StateDir(path)
    folder.past = PastRounds(path, most_bytes)
    for number in range(1, 6):
        state = dataclasses.replace(FIVE, trained_round=number)
        folder.save(state, writing(b"after %d" % number))
        folder.keep_upload(number, KeptUpload({"w": np.zeros(1, np.float32)}))
    begun = dataclasses.replace(FIVE, partial=LocalProgress(2), partial_round=6)
    folder.save(begun, writing(b"in 6"))
    return folder


@pytest.mark.parametrize(
    ("asked", "mode", "expected"),
    [
        (task(5), "sync", False),
        (task(6), "sync", False),
        (task(4), "sync", True),
        (task(4, action="wait"), "sync", False),
        (task(5, action="finish"), "sync", False),
        (task(4, action="finish"), "sync", True),
        # Without rounds, the last round of a device may be one that nobody waited for.
        (task(4, action="finish"), "async", False),
        (task(3, action="finish"), "async", True),
        # The model is of the upload that was answered, whatever came after it.
        (dataclasses.replace(task(4, action="finish"), view_round=2), "sync", False),
    ],
)
def test_when_a_device_is_ahead(asked: Task, mode: str, expected: bool) -> None:
    assert is_ahead(FIVE, asked, mode) is expected


@pytest.mark.parametrize(("asked", "after"), [(task(4, 3), 3), (task(3, 2), 2), (task(4, 4, "finish"), 4)])
def test_it_goes_back_to_the_weights_of_then(asked: Task, after: int, tmp_path: Path) -> None:
    folder, notes = after_rounds(tmp_path), list[str]()
    back = go_back(folder, folder.state("run-1", "client-a"), asked, notes.append)
    assert (back.trained_round, back.partial, back.engine) == (after, None, "portable")
    assert folder.state("run-1", "client-a") == back
    assert folder.checkpoint_path(back).read_bytes() == b"after %d" % after
    assert "the weights of then" in notes[0] and f"going back after round {after}" in notes[0]
    # What came later never was.
    kept = {path.name for path in (*tmp_path.glob("checkpoint-*"), *tmp_path.glob("upload-*"))}
    assert kept == {
        *(f"checkpoint-{number:06d}" for number in range(1, after + 1)),
        *(f"upload-{number:06d}.safetensors" for number in range(1, after + 1)),
    }
    folder.close()


def test_before_its_first_round_it_begins_anew(tmp_path: Path) -> None:
    folder = after_rounds(tmp_path)
    back = go_back(folder, folder.state("run-1", "client-a"), task(1), lambda line: None)
    assert back == DeviceState("run-1", "client-a", engine="portable")
    assert not list(tmp_path.glob("checkpoint-*"))
    folder.close()


def test_longer_ago_than_anything_is_kept_it_goes_on_with_what_it_has(tmp_path: Path) -> None:
    folder, notes = after_rounds(tmp_path, most_bytes=8), list[str]()
    back = go_back(folder, folder.state("run-1", "client-a"), task(3, 2), notes.append)
    assert (back.trained_round, folder.checkpoint_path(back).read_bytes()) == (2, b"in 6")
    assert "the weights of now: those of then are no longer kept" in notes[0]
    folder.close()


def test_uploads_are_kept_for_as_long_as_a_round_that_needs_them(tmp_path: Path) -> None:
    folder = after_rounds(tmp_path, most_bytes=8)
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == [
        "checkpoint-000005",
        "checkpoint-000006-000002",
    ]
    folder.drop_uploads(6)
    left = sorted(path.name for path in tmp_path.glob("upload-*"))
    assert left == [f"upload-{number:06d}.safetensors" for number in (3, 4, 5)]
    assert folder.has_upload(3) and not folder.has_upload(2)
    folder.close()
