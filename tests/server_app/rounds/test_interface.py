"""Both modes have all of the interface, and mypy refuses one that lacks a method or names it otherwise."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import server_app.rounds
from server_app.rounds.machine import Rounds, rounds_of
from server_app.rounds.state import RunState

MODES = {"sync": "SyncRounds", "asynchronous": "AsyncRounds"}
METHODS = [name for name, value in vars(Rounds).items() if inspect.isfunction(value) and name[0] != "_"]
# What stands outside the rounds is unknown to mypy here: so it takes seconds.
MYPY = "--config-file= --strict --ignore-missing-imports --no-incremental"


def test_the_mode_of_the_state_chooses() -> None:
    for mode, module in (("sync", "sync"), ("async", "asynchronous")):
        chosen = rounds_of(RunState(2, 2, mode=mode))
        assert type(chosen).__name__ == MODES[module]
        assert chosen == type(chosen)(), "it has no state of its own"


@pytest.mark.system
def test_mypy_refuses_a_mode_without_a_method(tmp_path: Path) -> None:
    """A machine for every method of either mode that is renamed, and one that is unchanged."""
    room = tmp_path / "server_app" / "rounds"
    room.mkdir(parents=True)
    (room.parent / "__init__.py").touch()
    for path in Path(server_app.rounds.__path__[0]).glob("*.py"):
        (room / path.name).write_text(path.read_text())
    machine = (room / "machine.py").read_text()
    for module in MODES:
        mode = (room / f"{module}.py").read_text()
        for method in METHODS:
            # The mode calls its own methods by the new name, as whoever renames one writes it.
            renamed = re.sub(rf"(def |self\.){method}\(", rf"\1{method}_anew(", mode)
            (room / f"{module}_{method}.py").write_text(renamed)
            own = machine.replace(f"rounds.{module} import", f"rounds.{module}_{method} import")
            assert renamed != mode and own != machine
            (room / f"machine_{module}_{method}.py").write_text(own)

    command = [sys.executable, "-m", "mypy", *MYPY.split(), "server_app"]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    refused = re.findall(r"rounds/(\w+)\.py:\d+: error: Incompatible return value", answer.stdout)
    assert set(refused) == {f"machine_{module}_{method}" for module in MODES for method in METHODS}, (
        answer.stdout + answer.stderr
    )
    assert "rounds/machine.py" not in answer.stdout
