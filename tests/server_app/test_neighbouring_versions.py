"""The device of the version before takes part in a run of this server, and the other way round.

The version before is what stood in the commit before the one that changed the protocol's version last. Clones
without that history skip this, and read recorded messages (tests/gkt_core/wire/test_versions.py).
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.conftest import LONGEST_SECONDS, ROOT
from tests.house.make_before import SMALL_SERVER
from tests.server_app.served import SMALL, SmallFederation, StartServer

PACKAGES = ("gkt_core", "edge_export", "edge_runtime", "server_app", "profiling")
DECLARED = "^PROTOCOL_VERSION, PROTOCOL_MINOR = "


def git(*arguments: str) -> bytes:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, timeout=LONGEST_SECONDS).stdout


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages as they were, to stand before those of now."""
    try:
        changed = git("log", "-1", "--format=%H", f"-G{DECLARED}", "--", "gkt_core/wire").decode().strip()
        packed = git("archive", f"{changed}~1" if changed else "HEAD", *PACKAGES)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no history of git here ({error}): the version before did NOT run")
    folder = tmp_path_factory.mktemp("before")
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def environment(*folders: Path) -> dict[str, str]:
    """Of a process that takes packages from there, and not from the folder that it is started in."""
    path = os.pathsep.join(map(str, (*folders, SMALL_SERVER)))
    return {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}


@pytest.mark.system
@pytest.mark.parametrize("old_side", ["device", "server"])
def test_they_train_together(
    old_side: str,
    before: Path,
    serve: StartServer,
    small: SmallFederation,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Beside a device of this version, so that the server has to keep them apart."""
    if old_side == "server":
        monkeypatch.setenv("PYTHONPATH", environment(before)["PYTHONPATH"])
    server = serve("--artifacts", small.bundle, "--clients", "2", "--rounds", "2", *SMALL)
    join = ("--join", server.data_dir / "join")
    of = {0: environment(before) if old_side == "device" else environment(), 1: environment()}
    devices = [
        server.device(small.data(number), tmp_path / f"device-{number}", *join, environment=of[number])
        for number in (0, 1)
    ]
    for device in devices:
        assert device.ended() == 0, device.log.read_text()
    for number in (0, 1):
        assert (tmp_path / f"device-{number}" / "model.onnx").stat().st_size > 0
    with server.out.open() as out:
        assert "serving run-" in out.read()
    assert server.end() == 130
    # Which code it was, the code says itself.
    old = subprocess.run(
        [sys.executable, "-c", "import gkt_core; print(gkt_core.__file__)"],
        env=environment(before),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=LONGEST_SECONDS,
    )
    assert old.stdout.startswith(str(before))
