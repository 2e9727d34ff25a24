"""Makes ``before.tar.xz``: a bundle, a run after the first of its two rounds, and its two devices' folders.

::

    python tests/house/make_before.py GKT tests/house/before.tar.xz

GKT is the command of an installed checkout of the version to keep; the archive here is of commit 759adfa,
the last before the packages got rooms. What it holds:

::

    images.npz   random images of 8x8 pixels in three classes
    split/       of `gkt data split`, for two devices
    bundle/      of `gkt export`: ResNet-4, and the server network of small_server/
    run/         --data-dir: round 1 is trained; nobody has reported in round 2
    first/       --state-dir of client-000, killed in the middle of its training of round 2
    second/      --state-dir of client-001, killed when it had reported in round 1
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

SMALL_SERVER = Path(__file__).resolve().parent / "small_server"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SMALL_SERVER)}
# Long enough that a device can be killed in the middle of its training.
RUN = (
    "--clients", "2", "--rounds", "2", "--local-epochs", "60", "--batch-size", "4", "--server-epochs", "1",
    "--server-batch-size", "8", "--shard-samples", "8", "--codec", "uint8", "--crop-padding", "1",
)  # fmt: skip
SECONDS = 300.0
# Locks, what a process printed, and where a server listened that is gone.
LEFT_OUT = ("lock", "server.lock", "trainer.lock", "trainer.log", "server.json")


def make(gkt: str, folder: Path) -> None:
    """Fill a folder."""
    images = np.random.default_rng(0).integers(0, 256, (44, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(44) % 3
    train, test = slice(36), slice(36, None)
    np.savez(
        folder / "images.npz",
        x_train=images[train],
        y_train=labels[train],
        x_test=images[test],
        y_test=labels[test],
    )

    def command(*arguments: str) -> None:
        subprocess.run([gkt, *arguments], cwd=folder, env=ENVIRONMENT, check=True)

    command("data", "split", "--dataset", "images.npz", "--clients", "2", "--out", "split")
    command(
        "export", "--split", "split/partition.json", "--model", "resnet4", "--server-model", "small_server",
        "--out", "bundle",
    )  # fmt: skip
    with process(gkt, folder, "serve", "--artifacts", "bundle", "--data-dir", "run", "--port", "0", *RUN):
        server = until(lambda: read(folder / "run" / "server.json"))
        token = (folder / "run" / "token").read_text().strip()

        def device(number: int, name: str, *options: str) -> contextlib.AbstractContextManager[None]:
            return process(
                gkt, folder, "edge", "run", "--server", server["url"], "--token", token,
                "--data", f"split/clients/client-{number:03d}.npz", "--state-dir", name,
                "--checkpoint-seconds", "0", *options, end=signal.SIGKILL,
            )  # fmt: skip

        def status() -> Any:
            request = urllib.request.Request(f"{server['url']}/v1/runs/{server['run_id']}/status")
            request.add_header("Authorization", f"Bearer {token}")
            with urllib.request.urlopen(request) as response:
                return json.load(response)

        def is_within(round_num: int) -> bool:
            state = read(folder / "first" / "state.json")
            return bool(state and state["partial"]) and state["partial_round"] == round_num

        with device(1, "second", "--engine", "ort-training"):
            # Round 1 begins when both have joined.
            with device(0, "first", "--engine", "portable"):
                until(lambda: is_within(1))
            until(lambda: status()["reported"] == ["client-001"])
        with device(0, "first"):
            until(lambda: is_within(2))
        now = status()
    assert (now["round_num"], now["phase"], now["reported"]) == (2, "collecting", []), now
    # The trainer's lease would hold for a minute more, or for long where a clock is behind.
    with contextlib.closing(sqlite3.connect(folder / "run" / "run.sqlite")) as database, database:
        database.execute("UPDATE runs SET lease_owner = 'elsewhere:/run', lease_until = 0")


@contextlib.contextmanager
def process(gkt: str, folder: Path, *arguments: str, end: signal.Signals = signal.SIGTERM) -> Iterator[None]:
    """A command that is ended with the block."""
    started = subprocess.Popen([gkt, *arguments], cwd=folder, env=ENVIRONMENT)
    try:
        yield
    finally:
        started.send_signal(end)
        started.wait(SECONDS)


def read(path: Path) -> Any:
    """A JSON file, or None before it is there."""
    return json.loads(path.read_text()) if path.is_file() else None


def until(condition: Callable[[], Any]) -> Any:
    """What a condition gives as soon as it holds."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.01)
    raise SystemExit(f"what was waited for did not happen in {SECONDS:.0f} s")


def anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Without owner and time; None for what is left out."""
    if Path(member.name).name in LEFT_OUT:
        return None
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        make(sys.argv[1], Path(made))
        with tarfile.open(sys.argv[2], "w:xz", preset=9) as archive:
            archive.add(made, ".", filter=anonymous)
