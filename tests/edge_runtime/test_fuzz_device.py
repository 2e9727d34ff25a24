"""Bent answers by the thousand: a device ends with an exit code of the table, and within its folder.

``make fuzz-device`` sends more of them; the seed is in the test's output, and one session is played again
with ``GKT_FUZZ_FIRST``.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gkt_core.bundle.manifest import Bundle, load_bundle
from gkt_core.data.private_data import save_private_data
from tests.conftest import LONGEST_SECONDS, ROOT
from tests.edge_runtime.bends import bend_of, bent_file
from tests.edge_runtime.hostile import rehashed
from tests.edge_runtime.hostile_server import HostileServer, Session, session_of, trained_template
from tests.server_app.server_fixtures import private_data, run_config

pytest_plugins = ["tests.server_app.server_fixtures"]

ANSWERS = int(os.environ.get("GKT_FUZZ_ANSWERS", "24"))
SEED = int(os.environ.get("GKT_FUZZ_SEED", "0"))
FIRST = int(os.environ.get("GKT_FUZZ_FIRST", "0"))
# A process dies of its worst session alone, and the others go on in another one.
AT_ONCE = 50
LIMIT_MB = 700
# docs/running.md, without what no device ends with.
CODES = {0, 1, 2, 3, 4, 5, 7, 8}
CONFIG = run_config(num_clients=1, rounds=2)
ENGINES = {"portable": "portable", "ort_training": "ort-training"}


def bundle_of(bundle: Bundle, seed: int, number: int, folder: Path) -> Bundle:
    """Every third session has a bundle of which one file is bent, its hash in the manifest with it."""
    import random  # noqa: PLC0415 - of this function alone

    rng = random.Random(f"bundle/{seed}/{number}")
    if rng.random() > 0.34:
        return bundle
    engine = rng.choice(sorted(ENGINES))
    name = rng.choice(bundle.manifest.engine_files(engine))
    shutil.copytree(bundle.path, folder)
    (folder / name).write_bytes(bent_file(rng, (folder / name).read_bytes()))
    return rehashed(folder, name)


def play(url: str, data: Path, root: Path, engine: str, first: int, last: int) -> list[dict[str, Any]]:
    """Let processes take part in these sessions, each on from where the one before it died."""
    results: list[dict[str, Any]] = []
    while first < last:
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        command = [sys.executable, "-m", "tests.edge_runtime.fuzz_child", url, str(data), str(root)]
        done = subprocess.run(
            [*command, str(LIMIT_MB), engine, str(first), str(last)],
            capture_output=True,
            text=True,
            check=False,
            timeout=LONGEST_SECONDS,
            cwd=ROOT,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        results += [json.loads(line) for line in done.stdout.splitlines()]
        first = results[-1]["session"] + 1 if results else first
        if first < last:
            died = {"session": first, "code": done.returncode, "trace": done.stderr[-3000:], "said": ""}
            results.append({**died, "outside": [], "peak_bytes": 0})
            first += 1
    return results


def is_wrong(result: dict[str, Any]) -> bool:
    """Whether a session ended as none may."""
    return bool(
        result["trace"]
        or result["code"] not in CODES
        or result["outside"]
        or "Traceback" in result["said"]
        or re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", result["said"])
    )


@pytest.mark.system
@pytest.mark.parametrize("engine", ENGINES)
def test_a_device_survives_bent_answers(server_bundle: Path, tmp_path: Path, engine: str) -> None:
    honest = load_bundle(server_bundle)
    template = trained_template(honest)
    data = tmp_path / "client-a.npz"
    save_private_data(data, private_data(1))
    folders = tmp_path / "bundles"

    def begin(number: int) -> Session:
        bundle = bundle_of(honest, SEED, number, folders / str(number))
        return session_of(bundle, template, CONFIG, bend_of(SEED, number))

    # Each engine gets a half of them.
    last = FIRST + -(-ANSWERS // len(ENGINES))
    server = HostileServer(begin)
    results: list[dict[str, Any]] = []
    with server.listening() as url:
        for begins in range(FIRST, last, AT_ONCE):
            ends = min(begins + AT_ONCE, last)
            played = play(url, data, tmp_path / "devices", ENGINES[engine], begins, ends)
            # As they come: whoever looks for thousands wants to see the first.
            sys.stdout.writelines(json.dumps(each, indent=1) + "\n" for each in played if is_wrong(each))
            results += played
            server.sessions.clear()
            with contextlib.suppress(OSError):
                shutil.rmtree(folders)
    assert [each["session"] for each in results] == list(range(FIRST, last))
    wrong = [each for each in results if is_wrong(each)]
    codes = Counter(each["code"] for each in results)
    sys.stdout.write(f"\n{engine}: {len(results)} sessions of seed {SEED}, exit codes {dict(codes)}\n")
    assert not wrong, f"{len(wrong)} sessions of seed {SEED}, first {wrong[0]['session']}"
    assert max(each["peak_bytes"] for each in results) < LIMIT_MB * 1_000_000
    # A fuzzer whose sessions all end at once looks at nothing.
    assert len(results) < 30 or (codes[0] and codes[2] and codes[3] and codes[4])


def test_the_same_seed_gives_the_same_answers() -> None:
    from tests.edge_runtime.hostile_server import Answer  # noqa: PLC0415 - beside what it is compared with

    for number in range(50):
        answers = [
            [
                bend_of(3, number)(name, 0, Answer(b'{"a": 1, "b": [2, 3]}')).body
                for name in ("run", "join", "task")
            ]
            for _ in range(2)
        ]
        assert answers[0] == answers[1]
