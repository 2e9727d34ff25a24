"""How is my run, which device is in trouble, what does it cost, what do I do now: as the README says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from edge_runtime.state.credential import kept_credential
from gkt_core.data.private_data import save_private_data
from tests.conftest import LONGEST_SECONDS, ROOT
from tests.server_app.served import Serve, serve
from tests.server_app.server_fixtures import private_data
from tests.server_app.waiting import until

__all__ = ["serve"]

pytest_plugins = ["tests.server_app.server_fixtures"]
pytestmark = pytest.mark.system


def asked_in_words(folder: Path) -> tuple[int, str]:
    """What the one command of the README prints, where it is written that it answers the four questions."""
    sentence = re.search(
        r"How the run is, which device is in trouble,.*?`(gkt [^`]*)`", (ROOT / "README.md").read_text()
    )
    assert sentence is not None
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        sentence[1].split(), cwd=folder, env=environment, capture_output=True, text=True, check=False,
        timeout=LONGEST_SECONDS,
    )  # fmt: skip
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout


def asked_in_browser(server: Serve) -> str:
    """The next step of the page, which is on this machine and shows no secret."""
    with urllib.request.urlopen(server.info["url"] + "/", timeout=LONGEST_SECONDS) as page:
        assert b"<html" in page.read()
    with urllib.request.urlopen(server.info["url"] + "/v1/page", timeout=LONGEST_SECONDS) as view:
        return str(json.load(view)["next_step"])


def test_four_questions(server_bundle: Path, serve: Callable[..., Serve], tmp_path: Path) -> None:
    server = serve(
        "--artifacts", server_bundle, "--clients", 2, "--rounds", 1, "--server-epochs", 1, "--batch-size", 8
    )
    for seed, name in enumerate(("anna", "bert")):
        save_private_data(tmp_path / f"{name}.npz", private_data(seed))

    # Nobody is there yet.
    code, said = asked_in_words(tmp_path)
    assert code == 0 and ": joining, not begun" in said
    assert "next         2 of 2 devices have never joined: give them the link in run/join" in said
    assert "2 of 2 devices have never joined" in asked_in_browser(server)

    # One has sent its part of the round; the other one sends what is no shard.
    anna = server.device(tmp_path / "anna.npz", tmp_path / "anna")
    bert = server.device(tmp_path / "bert.npz", tmp_path / "bert")
    until((tmp_path / "bert" / "state.json").is_file, "bert takes part")
    bert.process.kill()
    kept = kept_credential(tmp_path / "bert")
    assert kept is not None
    path = f"/v1/runs/{server.info['run_id']}/rounds/1/clients/bert/shards/train/0"
    wrong = httpx.put(
        server.info["url"] + path,
        content=b"no shard",
        headers={"Authorization": f"Bearer {kept.bearer('bert')}"},
    )
    assert wrong.status_code in (400, 422), wrong.text
    # What a server has heard is in the folder after some seconds.
    until(lambda: asked_in_words(tmp_path)[0] == 9, "somebody should look")
    _, said = asked_in_words(tmp_path)
    (next_step,) = re.findall("^next         (.*)$", said, re.MULTILINE)
    assert next_step.startswith("the last request of bert was refused: ")
    assert next_step.endswith("once that is mended, start it again")
    assert asked_in_browser(server) == next_step

    # It is started again with the same command, and the run comes to its end.
    assert server.device(tmp_path / "bert.npz", tmp_path / "bert").ended() == 0
    assert anna.ended() == 0
    until(lambda: asked_in_words(tmp_path)[0] == 0, "nobody need look")
    _, said = asked_in_words(tmp_path)
    assert ": finished, round 1 of 1" in said and re.search(
        "^last round   1: validation accuracy 0", said, re.MULTILINE
    )
    assert re.search("^bytes        .* from devices, .* to them$", said, re.MULTILINE)
    assert re.findall("^  (anna|bert) .*, own accuracy", said, re.MULTILINE) == ["anna", "bert"]
    assert "next         nothing is left to do: each device has its model.onnx" in said
