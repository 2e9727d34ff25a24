"""Bent answers: the TypeScript device ends with an exit code of the table, a sentence, and within its folder.

``GKT_FUZZ_ANSWERS=500 GKT_FUZZ_SEED=3`` sends more of them; ``GKT_FUZZ_FIRST`` plays one session again.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from gkt_core.bundle.manifest import Bundle, load_bundle, manifest_sha256
from gkt_core.data.private_data import save_private_data
from gkt_core.wire.protocol import PROTOCOL_VERSION, RunInfo
from tests.conftest import LONGEST_SECONDS
from tests.edge_runtime.bends import bend_of
from tests.edge_runtime.hostile_server import (
    RUN_ID,
    HostileServer,
    Session,
    message,
    session_of,
    trained_template,
)
from tests.edge_runtime.test_fuzz_device import CODES, bundle_of
from tests.server_app.server_fixtures import private_data, run_config

ANSWERS = int(os.environ.get("GKT_FUZZ_ANSWERS", "12"))
SEED = int(os.environ.get("GKT_FUZZ_SEED", "0"))
FIRST = int(os.environ.get("GKT_FUZZ_FIRST", "0"))
CONFIG = run_config(num_clients=1, rounds=2)
# Where a program fell, and what moves a cursor or turns a line round.
UNSEEN = re.compile(r"\n    at |[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")


def pin_of(session: Session) -> str:
    """The pin of the bundle that a session gives, bent or not: a link of whoever runs the server."""
    info = message(RunInfo(PROTOCOL_VERSION, RUN_ID, session.config.told(), session.manifest))
    bent = session.bend("run", 0, info)
    try:
        return manifest_sha256(json.loads(bent.body)["manifest"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return manifest_sha256(session.manifest)


def session_at(honest: Bundle, template: bytes, number: int, folder: Path) -> Session:
    bundle = bundle_of(honest, SEED, number, folder / str(number))
    return session_of(bundle, template, CONFIG, bend_of(SEED, number))


@pytest.mark.system
def test_a_node_device_survives_bent_answers(
    gkt_edge: list[str], server_bundle: Path, tmp_path: Path
) -> None:
    honest = load_bundle(server_bundle)
    template = trained_template(honest)
    data = tmp_path / "client-a.npz"
    save_private_data(data, private_data(1))
    codes: Counter[int] = Counter()
    for number in range(FIRST, FIRST + ANSWERS):
        session = session_at(honest, template, number, tmp_path / "bundles")
        root = tmp_path / str(number)
        root.mkdir()
        with HostileServer(lambda _, begun=session: begun).listening() as url:  # type: ignore[misc] # bound now
            link = f"gkt+{url}/#enroll=0123abcd.{'t' * 43}&bundle=sha256:{pin_of(session)}"
            command = [*gkt_edge, "run", "--join", link, "--data", str(data), "--client-id", "client-a"]
            command += ["--state-dir", str(root / "state"), "--patience-seconds", "0", "--stall-seconds", "1"]
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=LONGEST_SECONDS
            )
        said, where = done.stdout + done.stderr, f"session {number} of seed {SEED}"
        assert done.returncode in CODES, f"{where}: {done.returncode}: {said[-3000:]}"
        assert done.returncode == 0 or re.search("^error: ", done.stderr, re.MULTILINE), f"{where}: {said}"
        assert not re.search(r"\n    at |[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", said), (
            f"{where}: {said}"
        )
        assert os.listdir(root) == ["state"] and not list(root.rglob("*.tmp")), where
        codes[done.returncode] += 1
    sys.stdout.write(f"\n{ANSWERS} sessions of seed {SEED}, exit codes {dict(codes)}\n")
    # A fuzzer whose sessions all end at once looks at nothing.
    assert ANSWERS < 30 or (codes[0] and codes[2] and codes[3] and codes[4])
