"""Archives that are damaged, cut short or something else: refused by name, and nothing half restored."""

from __future__ import annotations

import io
import json
import os
import shutil
import stat
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from gkt_core.errors import BackupError, InputError, ResourceError
from gkt_core.files import try_to_lock
from gkt_core.wire.shards import ShardKey
from server_app import open_run
from server_app.backup import taking
from server_app.backup.archive import SUMS_NAME, writing_backup
from server_app.backup.lock import after_backups
from server_app.backup.restoring import restore_backup
from server_app.backup.taking import take_backup
from server_app.rounds.state import Joined
from server_app.run_folder import BACKUP_LOCK_NAME, RunContext, Storage, shard_blob
from server_app.store import RemoteBlobStore, ShardRecord
from tests.server_app.server_fixtures import CLIENTS

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

FORMS = ("backup.tar.zst", "backup")


@pytest.fixture
def run(empty_run: Path, tmp_path: Path) -> RunContext:
    """A run that devices have joined, with a shard, soft labels and a file that is of this machine."""
    shutil.copytree(empty_run, tmp_path / "run")
    opened = open_run(tmp_path / "run")
    for client_id in CLIENTS:
        opened.store.apply(Joined(client_id))
    key = ShardKey(CLIENTS[0], 1, "train", 0)
    shard = ShardRecord(key, "a" * 64, 8, 100, shard_blob(key, "a" * 64))
    opened.blobs.put(shard.blob, b"shard" * 1000)
    opened.store.add_shard(shard)
    opened.blobs.put("soft_labels/000001/client-a.safetensors", b"labels")
    # Of a round that is over, and nobody's row.
    opened.blobs.put("rounds/000000/client-a/train-000000-x.safetensors", b"left behind")
    (opened.folder / "server.json").write_text("{}")
    (opened.folder / "gkt.log.1").write_text("a line")
    return opened


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith("run.sqlite") and not path.name.endswith(".lock")
    }


@pytest.mark.parametrize("form", FORMS)
def test_what_comes_back_is_what_there_was(form: str, run: RunContext, tmp_path: Path) -> None:
    before, state = files_of(run.folder), run.store.state()
    run.store.take_lease("a trainer", 1000.0)
    backup = take_backup(run, tmp_path / form)
    assert (backup.run_id, backup.round_num, backup.phase) == (run.store.run_id, 1, "collecting")
    for path in (tmp_path / form, *(each for each in (tmp_path / form).rglob("*") if each.is_file())):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    restored = restore_backup(tmp_path / form, tmp_path / "elsewhere" / "run")
    again = open_run(tmp_path / "elsewhere" / "run")
    gone = {"server.json", "gkt.log.1", "blobs/rounds/000000/client-a/train-000000-x.safetensors"}
    assert files_of(again.folder).keys() - {"backup.json"} == before.keys() - gone
    assert all(before[name] == data for name, data in files_of(again.folder).items() if name in before)
    then = again.store.state()
    assert then.history[-1].text.endswith("collecting in round 1") and restored.num_clients == 2
    assert (then.clients, then.round_num, then.phase) == (state.clients, state.round_num, state.phase)
    assert again.store.shards(1) == run.store.shards(1)
    assert again.store.config() == run.store.config()
    assert again.store.take_lease("another trainer", 1.0), "the lease of a trainer that is not there"
    for path in (again.folder, *again.folder.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    again.store.close()
    run.store.close()


@pytest.mark.parametrize("form", FORMS)
def test_neither_a_backup_nor_a_run_is_replaced(form: str, run: RunContext, tmp_path: Path) -> None:
    take_backup(run, tmp_path / form)
    with pytest.raises(InputError, match=r"there already|already exists"):
        take_backup(run, tmp_path / form)
    before = files_of(run.folder)
    with pytest.raises(InputError, match="already exists and is not empty: choose another --data-dir"):
        restore_backup(tmp_path / form, run.folder)
    assert files_of(run.folder) == before
    run.store.close()


def refused(backup: Path, folder: Path) -> str:
    """Why a backup is not restored; nothing is left of trying."""
    target = folder / "again" / "run"
    with pytest.raises(InputError) as caught:
        restore_backup(backup, target)
    assert not target.parent.exists()
    return str(caught.value)


def test_an_archive_that_is_cut_anywhere_is_refused(run: RunContext, tmp_path: Path) -> None:
    whole = tmp_path / "whole.tar.zst"
    take_backup(run, whole)
    run.store.close()
    data, cut = whole.read_bytes(), tmp_path / "cut.tar.zst"
    for length in (0, 3, 100, len(data) // 3, len(data) // 2, len(data) - 300, len(data) - 5, len(data) - 1):
        cut.write_bytes(data[:length])
        words = refused(cut, tmp_path)
        assert str(cut) in words and ("cut short" in words or "no backup of gkt" in words), (length, words)


def test_a_bit_that_is_changed_anywhere_is_noticed(run: RunContext, tmp_path: Path) -> None:
    whole, bent = tmp_path / "whole.tar.zst", tmp_path / "bent.tar.zst"
    take_backup(run, whole)
    run.store.close()
    data = bytearray(whole.read_bytes())
    for place in range(7, len(data), len(data) // 12):
        data[place] ^= 0x10
        bent.write_bytes(data)
        assert str(bent) in refused(bent, tmp_path), place
        data[place] ^= 0x10


def bent_file(folder: Path) -> None:
    path = folder / "checkpoints.txt" if (folder / "checkpoints.txt").exists() else folder / "run.sqlite"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (bent_file, "damaged: run.sqlite is not what its checksum says"),
        (lambda folder: (folder / "operator_secret").unlink(), "damaged: operator_secret is missing"),
        (lambda folder: (folder / "more").write_text("?"), "damaged: more is not what its checksum says"),
        (lambda folder: (folder / SUMS_NAME).unlink(), "cut short: checksums.json is missing"),
        (lambda folder: (folder / SUMS_NAME).write_text("{"), "damaged: checksums.json cannot be read"),
        (lambda folder: (folder / "backup.json").unlink(), "is no backup of gkt: expected backup.json first"),
        (lambda folder: (folder / "link").symlink_to("/etc/passwd"), "'link' in it is no file"),
    ],
)
def test_a_damaged_folder_is_named(
    harm: Callable[[Path], object], words: str, run: RunContext, tmp_path: Path
) -> None:
    take_backup(run, tmp_path / "backup")
    run.store.close()
    harm(tmp_path / "backup")
    assert words in refused(tmp_path / "backup", tmp_path)


def packed(path: Path, files: dict[str, bytes], kind: bytes = tarfile.REGTYPE) -> Path:
    """An archive of files that somebody else made."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.type, member.linkname = len(data), kind, "/etc/passwd"
            tar.addfile(member, io.BytesIO(data))
    path.write_bytes(zstd.compress(buffer.getvalue()))
    return path


HEADER = json.dumps({"format": 1, "run_id": "run-1", "gkt_version": "9.9"}).encode()


@pytest.mark.parametrize("name", ["../out", "/etc/out", "a/../../out", "a//b", "a\\..\\b", "./a"])
def test_no_name_leads_out_of_the_folder(name: str, tmp_path: Path) -> None:
    evil = packed(tmp_path / "evil.tar.zst", {"backup.json": HEADER, name: b"x"})
    assert "it holds a file called" in refused(evil, tmp_path)
    assert not (tmp_path / "out").exists() and not Path("/etc/out").exists()


def test_what_is_no_backup_is_said_so(tmp_path: Path) -> None:
    other = packed(tmp_path / "other.tar.zst", {"holiday.jpg": b"x"})
    assert "is no backup of gkt: expected backup.json first" in refused(other, tmp_path)
    linked = packed(tmp_path / "linked.tar.zst", {"backup.json": b""}, tarfile.SYMTYPE)
    assert "in it is no file" in refused(linked, tmp_path)
    later = packed(tmp_path / "later.tar.zst", {"backup.json": HEADER.replace(b"1", b"2", 1)})
    assert "restore it with gkt-edge 9.9 or later" in refused(later, tmp_path)
    assert "there is no backup" in refused(tmp_path / "nothing.tar.zst", tmp_path)
    with pytest.raises(BackupError, match="holds no rows of run-1"):
        with writing_backup(tmp_path / "empty") as archive:
            archive.add_json("backup.json", json.loads(HEADER))
        restore_backup(tmp_path / "empty", tmp_path / "run")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
def test_a_lock_that_root_leaves_is_the_owners_of_the_folder(run: RunContext, tmp_path: Path) -> None:
    """A backup by root beside a server of another user: its trainer meets no lock that it may not open."""
    os.chown(run.folder, 10_001, 10_001)
    take_backup(run, tmp_path / "backup")
    assert (run.folder / BACKUP_LOCK_NAME).stat().st_uid == 10_001
    run.store.close()


def test_nothing_is_dropped_while_a_backup_is_taken(run: RunContext) -> None:
    looks: list[int] = []
    held = try_to_lock(run.folder / BACKUP_LOCK_NAME)
    assert held is not None

    def look() -> None:
        looks.append(1)
        if len(looks) == 3:
            held.close()

    after_backups(run, look).close()
    assert len(looks) == 3
    run.store.close()


def test_what_is_erased_meanwhile_is_in_no_backup(
    run: RunContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows of the moment name a file that is gone when it is read: another moment is taken."""
    (shard,), opened, tries = run.store.shards(1), run.blobs.opened, list[str]()

    def erased(name: str) -> object:
        if name == shard.blob and not tries:
            tries.append(name)
            run.store.forget_shard(shard)
            run.blobs.delete(name)
        return opened(name)

    monkeypatch.setattr(run.blobs, "opened", erased)
    notes: list[str] = []
    take_backup(run, tmp_path / "backup", notes.append)
    assert tries and notes == [f"{shard.blob} was replaced or erased meanwhile: beginning anew"]
    restore_backup(tmp_path / "backup", tmp_path / "again")
    again = open_run(tmp_path / "again")
    assert again.store.shards(1) == [] and not any("rounds" in name for name in again.blobs.names())
    again.store.close()
    # Where that does not end, it says what helps.
    monkeypatch.setattr(run.blobs, "opened", lambda name: (_ for _ in ()).throw(FileNotFoundError(name)))
    monkeypatch.setattr(taking, "_MOST_TRIES", 2)
    with pytest.raises(ResourceError, match=r"pause the run .gkt runs pause"):
        take_backup(run, tmp_path / "more")
    assert not (tmp_path / "more").exists() and not list(tmp_path.glob(".more*"))
    run.store.close()


def test_a_bucket_that_fails_in_the_middle_is_left_empty(
    run: RunContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_backup(run, tmp_path / "backup")
    put_file, puts = RemoteBlobStore.put_file, list[str]()

    def failing(self: RemoteBlobStore, name: str, path: Path) -> None:
        puts.append(name)
        if len(puts) == 2:
            raise OSError("the bucket is full")
        put_file(self, name, path)

    monkeypatch.setattr(RemoteBlobStore, "put_file", failing)
    url = "memory://restored"
    with pytest.raises(OSError, match="the bucket is full"):
        restore_backup(tmp_path / "backup", tmp_path / "again", Storage(blobs=url))
    bucket = RemoteBlobStore(f"{url}/{run.store.run_id}", tmp_path / "copies")
    assert bucket.names() == [] and not (tmp_path / "again").exists()
    monkeypatch.setattr(RemoteBlobStore, "put_file", put_file)
    restore_backup(tmp_path / "backup", tmp_path / "again", Storage(blobs=url))
    assert len(bucket.names()) == 2
    with pytest.raises(InputError, match=r"holds 2 files already"):
        restore_backup(tmp_path / "backup", tmp_path / "third", Storage(blobs=url))
    run.store.close()
