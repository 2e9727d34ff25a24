"""Threads that wait sleep: whatever loads PyTorch was told before, unless the user has decided."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gkt_core.config.waiting import PATIENT_THREADS

DECISIONS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
# OpenMP prints how it is set when it is loaded; its policy it calls PASSIVE where none is set, too.
TOLD = {"OMP_DISPLAY_ENV": "VERBOSE"}


def spin_counts(folder: Path, *command: str, **decided: str) -> set[str]:
    """How often threads of a command look before they sleep; OpenMP may be there several times."""
    environment = {name: value for name, value in os.environ.items() if name not in DECISIONS}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**environment, **TOLD, **decided},
        capture_output=True,
        text=True,
        check=False,
    )
    return set(re.findall(r"GOMP_SPINCOUNT\s*=\s*'(\w+)'", done.stderr))


@pytest.mark.system
@pytest.mark.skipif(sys.platform != "linux", reason="GCC's OpenMP prints how long it spins")
@pytest.mark.parametrize(
    "command",
    [
        ("-m", "server_app.trainer", "--help"),
        # Loads PyTorch before it sees that there is no such split.
        ("-m", "gkt_core.cli", "simulate", "--out", "nothing", "--split", "no-such-folder"),
    ],
    ids=["trainer", "simulation"],
)
def test_threads_of_a_command_sleep_while_they_wait(command: tuple[str, ...], tmp_path: Path) -> None:
    assert spin_counts(tmp_path, *command) == {"0"}


@pytest.mark.skipif(sys.platform != "linux", reason="as above")
def test_what_the_user_has_decided_stays(tmp_path: Path) -> None:
    assert spin_counts(tmp_path, "-m", "server_app.trainer", "--help", GOMP_SPINCOUNT="77") == {"77"}


@pytest.mark.parametrize("name", DECISIONS)
def test_one_decision_is_enough(name: str) -> None:
    code = "from gkt_core.config.waiting import *; import os; wait_patiently(); print(sorted(os.environ))"
    environment = {key: value for key, value in os.environ.items() if key not in DECISIONS}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, name: "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [each for each in DECISIONS if f"'{each}'" in done.stdout] == [name]
    assert set(PATIENT_THREADS) < set(DECISIONS)
