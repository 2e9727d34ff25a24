"""A TypeScript device goes on: after a kill, with photos that changed, in a folder that Python began."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gkt_core.bundle.manifest import Bundle, manifest_sha256
from gkt_core.data.pack import PackOptions, pack, target_of
from gkt_core.data.private_data import load_private_data, owner_key_of, save_private_data
from gkt_core.wire.protocol import Task
from tests.conftest import LONGEST_SECONDS, until
from tests.edge_runtime.hostile_cases import instead, straight
from tests.edge_runtime.hostile_server import (
    Bend,
    HostileServer,
    Session,
    message,
    session_of,
)
from tests.edge_runtime.javascript.node_package import DIST
from tests.server_app.server_fixtures import private_data, run_config

pytestmark = pytest.mark.system

CONFIG = run_config(num_clients=1, rounds=2, local_epochs=4)
STOP = instead("task", lambda _: message(Task("stop", 2, 0, 0.0, "later")))
SECOND = instead("join", lambda _: message(Task("train", 2, 1, 0.0, "")))


class Federation:
    """A scripted server, and devices of both languages with its link."""

    def __init__(self, command: list[str], bundle: Bundle, template: bytes, folder: Path) -> None:
        self.command, self.bundle, self.template, self.folder = command, bundle, template, folder
        save_private_data(folder / "client-a.npz", private_data(1))

    def server(
        self, bend: Bend = straight, before: HostileServer | None = None, **changes: Any
    ) -> HostileServer:
        """Of a run that begins, or goes on with what another one has received."""
        received = {} if before is None else before.sessions[0].received

        def begin(number: int) -> Session:
            session = session_of(self.bundle, self.template, CONFIG, bend, **changes)
            session.received.update(received)
            return session

        return HostileServer(begin)

    def arguments(self, url: str, state: Path, data: Path | None, *options: str, **changes: Any) -> list[str]:
        pin = manifest_sha256(self.bundle.manifest.to_dict() | changes)
        link = f"gkt+{url}/#enroll=0123abcd.{'t' * 43}&bundle=sha256:{pin}"
        arguments = ["--join", link, "--data", str(data or self.folder / "client-a.npz")]
        return [*arguments, "--state-dir", str(state), "--client-id", "client-a", *options]

    def node(
        self, server: HostileServer, state: Path, *options: str, data: Path | None = None, **changes: Any
    ) -> subprocess.CompletedProcess[str]:
        with server.listening() as url:
            command = [*self.command, "run", *self.arguments(url, state, data, *options, **changes)]
            return run(command)

    def python(self, server: HostileServer, state: Path, *options: str) -> subprocess.CompletedProcess[str]:
        with server.listening() as url:
            command = [sys.executable, "-m", "gkt_core.cli", "edge", "run", "--engine", "portable"]
            return run([*command, *self.arguments(url, state, None, *options)])


def run(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=LONGEST_SECONDS,
        env={**os.environ, **environment},
    )


@pytest.fixture
def federation(gkt_edge: list[str], honest: Bundle, template: bytes, tmp_path: Path) -> Federation:
    return Federation(gkt_edge, honest, template, tmp_path)


def checkpoint(state: Path) -> bytes:
    # That of the round before is for a server that comes back from a backup.
    assert sorted(path.name for path in state.glob("checkpoint-*")) == [
        "checkpoint-000001",
        "checkpoint-000002",
    ]
    return (state / "checkpoint-000002").read_bytes()


def test_it_goes_back_with_a_server_that_came_back_from_a_backup(
    federation: Federation, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    first = federation.server()
    assert federation.node(first, state).returncode == 0
    ended = {name: (state / name).read_bytes() for name in ("checkpoint-000001", "checkpoint-000002")}
    # In round 2 it begins from what stood after round 1; in round 1 anew.
    for back, after in ((federation.server(), 0), (federation.server(SECOND, first), 1)):
        if after:
            made = json.loads((state / "state.json").read_text())
            (state / "state.json").write_text(json.dumps(made | {"trained_round": 3}))
            (state / "checkpoint-000003").write_bytes(ended["checkpoint-000002"])
        done = federation.node(back, state)
        assert done.returncode == 0, done.stderr
        assert f"from a backup: going back after round {after}, with the weights of then" in done.stderr
    assert {name: (state / name).read_bytes() for name in ended} == ended


def test_a_killed_device_ends_with_the_bytes_of_one_that_was_left_alone(
    federation: Federation, tmp_path: Path
) -> None:
    undisturbed, killed = federation.server(), federation.server()
    assert federation.node(undisturbed, tmp_path / "left").returncode == 0
    state = tmp_path / "killed"
    node, main = federation.command
    with killed.listening() as url:
        arguments = [main, "run", *federation.arguments(url, state, None), "--checkpoint-seconds", "0"]
        killer = [node, "--import", str(DIST / "tests" / "killer.js"), *arguments]
        assert run(killer, GKT_KILL_AFTER="5").returncode == -signal.SIGKILL
        # One process at a time; the one that is gone holds nothing.
        assert (state / "node.lock").exists()
        done = run([node, *arguments])
    assert done.returncode == 0 and "goes on after round 0 and 5 steps" in done.stderr, done.stderr
    assert checkpoint(state) == checkpoint(tmp_path / "left")
    assert killed.sessions[0].received == undisturbed.sessions[0].received
    assert (state / "model.onnx").read_bytes() == (tmp_path / "left" / "model.onnx").read_bytes()


def test_two_processes_do_not_share_a_folder(federation: Federation, tmp_path: Path) -> None:
    waits = instead("task", lambda _: message(Task("wait", 1, 0, 0.1, "nobody")))
    server = federation.server(waits)
    with server.listening() as url:
        command = [*federation.command, "run", *federation.arguments(url, tmp_path / "state", None)]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as device:
            until(lambda: device.poll() is not None or (tmp_path / "state" / "state.json").exists(), "it")
            done = run(command)
            device.send_signal(signal.SIGINT)
            assert device.wait(LONGEST_SECONDS) == 130
    assert done.returncode == 2 and "another gkt-edge" in done.stderr


@pytest.mark.parametrize("first", ["python", "node"])
def test_a_folder_goes_on_in_the_other_language(federation: Federation, tmp_path: Path, first: str) -> None:
    second = {"python": "node", "node": "python"}[first]
    server, state = federation.server(STOP), tmp_path / "state"
    stopped = getattr(federation, first)(server, state)
    assert stopped.returncode == 7, stopped.stderr
    key = json.loads((state / "device.json").read_text())["client_key"]
    goes_on = federation.server(SECOND, before=server)
    done = getattr(federation, second)(goes_on, state)
    assert done.returncode == 0 and "goes on after round 1" in done.stderr, done.stderr
    # The same device to the server, which keeps the link for another.
    assert json.loads((state / "device.json").read_text())["client_key"] == key
    assert goes_on.sessions[0].counted["credential"] == 0
    assert "have changed since" not in done.stderr
    assert {index for round_num, _, index in goes_on.sessions[0].received if round_num == 2} == {0, 1}


def test_data_that_changed_are_named_and_taken_for_what_they_are(
    federation: Federation, tmp_path: Path
) -> None:
    state, data = tmp_path / "state", federation.folder / "client-a.npz"
    first = federation.server(STOP)
    assert federation.node(first, state).returncode == 7
    private = load_private_data(data)
    private.train.images[0] ^= 255
    save_private_data(data, private)
    done = federation.node(federation.server(SECOND, before=first), state)
    assert done.returncode == 0, done.stderr
    assert "as they were: 16 samples" in done.stderr and "another image under their old id" in done.stderr


def photos(folder: Path) -> None:
    """Pictures of the size that the bundle takes, so that every pixel is kept, and what else lies there."""
    rng = np.random.default_rng(4)
    for name in ("ant", "Bee", "cat"):
        (folder / name).mkdir(parents=True)
        for number in range(5):
            picture = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            picture.save(folder / name / f"{number}.png")
    Image.new("RGB", (8, 8), "red").save(folder / "loose.png")
    (folder / "cat" / "notes.txt").write_text("a cat")
    (folder / "cat" / "._0.png").write_bytes(b"\0\5\x16\7")
    (folder / "cat" / "cut.png").write_bytes((folder / "cat" / "0.png").read_bytes()[:60])
    (folder / "dogs").mkdir()
    Image.new("L", (8, 8), 9).save(folder / "dogs" / "grey.png")


def test_photos_are_packed_as_python_packs_them(federation: Federation, tmp_path: Path) -> None:
    state, names = tmp_path / "state", ["ant", "bee", "cat"]
    photos(tmp_path / "photos")
    server = federation.server(class_names=names)
    maps = ("--map", "dogs=cat")
    done = federation.node(server, state, *maps, data=tmp_path / "photos", class_names=names)
    assert done.returncode == 0, done.stderr
    assert "images taken: 16; files left out: 3" in done.stderr
    for reason in (
        "in no class folder: loose.png",
        "no image that is known (.txt): cat/notes.txt",
        "damaged",
    ):
        assert reason in done.stderr
    packed = load_private_data(state / "packed.npz")
    assert (state / "packed.npz").stat().st_mode & 0o777 == 0o600
    manifest = federation.bundle.manifest.from_dict(
        federation.bundle.manifest.to_dict() | {"class_names": names}
    )
    options, source = PackOptions(maps=("dogs=cat",)), str(tmp_path / "photos")
    theirs, _ = pack(
        source, target_of(manifest, options, source), options, owner_key_of(state / "packed.npz")
    )
    assert packed.class_names == theirs.class_names
    for ours, expected in ((packed.train, theirs.train), (packed.validation, theirs.validation)):
        for field in ("images", "labels", "sample_ids"):
            assert np.array_equal(getattr(ours, field), getattr(expected, field)), field
    # Nothing changed: what was packed is taken; a photo more: the others keep ids and parts.
    again = federation.node(
        federation.server(class_names=names), state, *maps, data=tmp_path / "photos", class_names=names
    )
    assert "images taken" not in again.stderr
    Image.new("RGB", (8, 8), "blue").save(tmp_path / "photos" / "ant" / "more.png")
    more = federation.node(
        federation.server(class_names=names), state, *maps, data=tmp_path / "photos", class_names=names
    )
    assert "has changed: packed again" in more.stderr and "1 sample new" in more.stderr
    after = load_private_data(state / "packed.npz")
    assert set(packed.train.sample_ids) <= set(after.train.sample_ids)
    assert set(packed.validation.sample_ids) <= set(after.validation.sample_ids)


@pytest.mark.parametrize(
    "options", [(), ("--feature-clip", "1", "--feature-noise", "0.5")], ids=["bare", "noise"]
)
def test_a_dry_run_says_what_would_leave_and_sends_nothing(
    federation: Federation, tmp_path: Path, options: tuple[str, ...]
) -> None:
    server = federation.server()
    done = federation.node(server, tmp_path / "unused", "--dry-run", *options)
    assert done.returncode == 0, done.stderr
    assert "nothing was sent" in done.stdout and "the images themselves" in done.stdout
    assert ("limited to -1..1 and with Gaussian noise of deviation 0.5" in done.stdout) is bool(options)
    assert "resnet8, 16x8x8, 8 bits a number" in done.stdout
    session = server.sessions[0]
    assert not session.received and not session.counted["credential"] and not session.counted["join"]
    assert not (tmp_path / "unused").exists()


def test_noise_is_kept_and_asked_for_again(federation: Federation, tmp_path: Path) -> None:
    state, noise = tmp_path / "state", ("--feature-noise", "0.25")
    server = federation.server(STOP)
    assert federation.node(server, state, *noise).returncode == 7
    assert (state / "noise.json").stat().st_mode & 0o777 == 0o600
    forgotten = federation.node(federation.server(), state)
    assert (
        forgotten.returncode == 2 and "began with --feature-clip 0 --feature-noise 0.25" in forgotten.stderr
    )


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--require-tap", "16x4x4"), 2, "this device was told of 16x4x4"),
        (("--max-bits", "4"), 2, "4 bits at most (--max-bits)"),
        (("--require-tap", "resnet8", "--max-bits", "8"), 0, ""),
        (("--threads", "none"), 2, "--threads is 'none', expected a number, 1 to 256"),
        (("--nonsense",), 2, "gkt-edge --help lists the options"),
        (("--data", "nowhere.npz"), 2, "there is no such file or folder"),
        (("--join", "nowhere"), 2, "no file that holds one"),
    ],
    ids=str,
)
def test_options_are_judged_before_anything_is_spent(
    federation: Federation, tmp_path: Path, options: tuple[str, ...], code: int, words: str
) -> None:
    server = federation.server()
    done = federation.node(server, tmp_path / "state", *options)
    assert done.returncode == code and words in done.stderr, done.stderr
    assert "    at " not in done.stderr
    credentials = [session.counted["credential"] for session in server.sessions.values()]
    assert sum(credentials) == (code == 0)


def test_without_a_folder_it_keeps_its_state_where_it_was_called(
    federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with federation.server().listening() as url:
        whole = federation.arguments(url, tmp_path / "unused", None)
        arguments = whole[: whole.index("--state-dir")]
        done = run([*federation.command, "run", *arguments])
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "gkt-state" / "client-a" / "model.onnx").is_file()
    assert "the combined model is gkt-state/client-a/model.onnx" in done.stdout
