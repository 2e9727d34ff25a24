"""A device's name is drawn once and stays with its state folder; old folders keep theirs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_runtime.state.identity import identity_of
from gkt_core.errors import ArtifactError, MessageError


def test_a_name_is_drawn_once_and_two_owners_files_of_one_name_are_two_devices(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    first, second = (identity_of(tmp_path / name, None, "data") for name in ("a", "b"))
    assert first.client_id != second.client_id and first.client_key != second.client_key
    assert first.client_id.startswith("data-")
    assert identity_of(tmp_path / "a", None, "other") == first
    assert (tmp_path / "a" / "device.json").stat().st_mode & 0o077 == 0


def test_a_folder_of_before_keeps_its_name_and_gets_a_key(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(json.dumps({"run_id": "run-1", "client_id": "client-000"}))
    first = identity_of(tmp_path, None, "renamed")
    assert first.client_id == "client-000" and first.client_key
    assert identity_of(tmp_path, None, "renamed") == first


def test_a_name_that_is_given_is_taken_with_the_same_key(tmp_path: Path) -> None:
    drawn = identity_of(tmp_path, None, "x" * 64)
    assert len(drawn.client_id) <= 64
    given = identity_of(tmp_path, "kitchen", "data")
    assert (given.client_id, given.client_key) == ("kitchen", drawn.client_key)
    assert identity_of(tmp_path, None, "data") == given
    with pytest.raises(MessageError, match="client id 'a b'"):
        identity_of(tmp_path, "a b", "data")


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"client_id": 3}'])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "device.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"cannot be read: .*choose another --state-dir"):
        identity_of(tmp_path, None, "data")


def test_another_name_for_a_folder_that_has_begun_is_refused_and_not_noted(tmp_path: Path) -> None:
    """Noted, it would be asked for at every start after the mistake."""
    first = identity_of(tmp_path, "kitchen", "data")
    (tmp_path / "state.json").write_text(json.dumps({"run_id": "run-1", "client_id": "kitchen"}))
    with pytest.raises(ArtifactError, match="belongs to the device kitchen, not to cellar: leave"):
        identity_of(tmp_path, "cellar", "data")
    assert identity_of(tmp_path, None, "data") == identity_of(tmp_path, "kitchen", "data") == first
