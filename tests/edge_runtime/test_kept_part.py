"""A download that was half done when its process ended: the next process asks for the rest."""

from __future__ import annotations

import contextlib
import errno
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_runtime.connection.kept_part import NOTE_NAME, PART_NAME
from edge_runtime.server_client import ServerClient
from gkt_core.data.private_data import save_private_data
from gkt_core.errors import DiskFullError, RoundClosedError, ServerUnavailableError
from gkt_core.files import write_atomically
from tests.edge_runtime.device_fixtures import Served, command, process, wait_until
from tests.edge_runtime.slow_link import SlowLink
from tests.server_app.server_fixtures import TOKEN, private_data

pytest_plugins = ["tests.server_app.server_fixtures"]

NAME = "train_step.onnx"


@pytest.fixture
def served(server_bundle: Path, tmp_path: Path) -> Iterator[Served]:
    with Served(server_bundle, tmp_path / "run").listening() as served:
        yield served


@contextlib.contextmanager
def device(url: str, folder: Path, lines: list[str], *, patience_seconds: float) -> Iterator[ServerClient]:
    """What one process has of a server."""
    server = ServerClient(
        url, TOKEN, on_retry=lines.append, sleep=lambda seconds: None, patience_seconds=patience_seconds
    )
    with contextlib.closing(server):
        server.part_folder = folder
        server.run_info()
        yield server


def half(served: Served, folder: Path) -> int:
    """Download until the link breaks and patience ends; how much is there."""
    whole, link = served.run.bundle.file(NAME).read_bytes(), SlowLink(int(served.url.rpartition(":")[2]))
    with link.listening() as url, device(url, folder, [], patience_seconds=0) as server:
        link.breaks_after = len(whole) // 2
        with pytest.raises(ServerUnavailableError):
            server.artifact(NAME)
    kept = (folder / PART_NAME).read_bytes()
    assert 0 < len(kept) < len(whole) and whole.startswith(kept)
    return len(kept)


def rest(served: Served, folder: Path) -> tuple[int, list[str]]:
    """Download in another process; how many bytes came, and what was said."""
    lines: list[str] = []
    with device(served.url, folder, lines, patience_seconds=10) as server:
        before = server.download_bytes
        assert server.artifact(NAME) == served.run.bundle.file(NAME).read_bytes()
        came = server.download_bytes - before
    assert not (folder / PART_NAME).exists() and not (folder / NOTE_NAME).exists()
    return came, lines


def test_the_next_process_asks_for_the_rest(served: Served, tmp_path: Path) -> None:
    kept, whole = half(served, tmp_path), served.run.bundle.file(NAME).stat().st_size
    came, lines = rest(served, tmp_path)
    # One byte comes twice: of a part that is whole there would be no rest to ask for.
    assert came == whole - kept + 1
    assert len(lines) == 1 and f"goes on after {kept - 1:,} bytes" in lines[0]


def test_all_of_it_was_there(served: Served, tmp_path: Path) -> None:
    half(served, tmp_path)
    (tmp_path / PART_NAME).write_bytes(served.run.bundle.file(NAME).read_bytes())
    assert rest(served, tmp_path)[0] == 1


def test_a_part_that_the_disk_changed_is_not_believed(served: Served, tmp_path: Path) -> None:
    half(served, tmp_path)
    path = tmp_path / PART_NAME
    path.write_bytes(bytes(path.stat().st_size))
    came, lines = rest(served, tmp_path)
    assert came > served.run.bundle.file(NAME).stat().st_size
    assert any("not the server's" in line for line in lines)


@pytest.mark.parametrize(
    "note",
    ["", "{", "[]", '{"name": "another", "sha256": "%s"}' % ("0" * 64), '{"name": "%s", "sha256": "a\\nb"}'],
    ids=["none", "cut", "no object", "of another file", "no hash"],
)
def test_a_part_of_who_knows_what_is_begun_anew(served: Served, tmp_path: Path, note: str) -> None:
    half(served, tmp_path)
    name = json.loads((tmp_path / NOTE_NAME).read_text())["name"]
    (tmp_path / NOTE_NAME).write_text(note.replace("%s", name))
    assert rest(served, tmp_path) == (served.run.bundle.file(NAME).stat().st_size, [])


def test_another_file_under_the_name_is_begun_anew(served: Served, tmp_path: Path) -> None:
    """As the model of another round: If-Range asks for the rest of the one that was begun, and no other's."""
    half(served, tmp_path)
    path = served.run.bundle.file(NAME)
    other = path.read_bytes()[::-1]
    write_atomically(path, other)
    came, lines = rest(served, tmp_path)
    assert came == len(other) and not any("not the server's" in line for line in lines)


def test_what_the_server_refuses_is_not_asked_for_again(served: Served, tmp_path: Path) -> None:
    half(served, tmp_path)
    with device(served.url, tmp_path, [], patience_seconds=0) as server:
        with pytest.raises(Exception, match="client-b") as refused:
            server.soft_labels("client-b", 1)
        assert not isinstance(refused.value, (ServerUnavailableError, RoundClosedError))
    assert not (tmp_path / PART_NAME).exists()


def test_a_disk_that_is_full_keeps_what_has_come(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = half(served, tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched, device(served.url, tmp_path, [], patience_seconds=10) as server:
        patched.setattr("edge_runtime.connection.kept_part.shutil.copyfileobj", full)
        with pytest.raises(DiskFullError, match=f"cannot write .*{PART_NAME}: No space left"):
            server.artifact(NAME)
    assert (tmp_path / PART_NAME).stat().st_size > kept
    assert rest(served, tmp_path)[0] == 1


def test_a_device_that_is_killed_while_it_downloads(served: Served, tmp_path: Path) -> None:
    """The command itself, ended by SIGKILL in the middle of the step's graph."""
    data, state = tmp_path / "client-a.npz", tmp_path / "state"
    save_private_data(data, private_data(1))
    port, num_bytes = int(served.url.rpartition(":")[2]), served.run.bundle.file(NAME).stat().st_size
    slow = SlowLink(port)
    with slow.listening() as url:
        served.url, slow.bytes_per_second = url, num_bytes / 4
        with process(command(served, data, state, "--engine", "portable")) as killed:
            part = state / PART_NAME
            wait_until(lambda: part.exists() and part.stat().st_size > num_bytes // 4, killed)
            killed.send_signal(signal.SIGKILL)
        assert part.stat().st_size < num_bytes and NAME in (state / NOTE_NAME).read_text()
        slow.bytes_per_second = 0
        with process(command(served, data, state, "--engine", "portable")) as again:
            wait_until(lambda: served.has_report, again)
            again.kill()
            assert again.stderr is not None
            said = again.stderr.read()
    assert f"{NAME}: goes on after " in said
    assert (state / "bundle" / NAME).read_bytes() == served.run.bundle.file(NAME).read_bytes()
    assert not part.exists()
