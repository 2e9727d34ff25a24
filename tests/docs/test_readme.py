"""What the README says, run or compared with the code."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

from gkt_core import errors
from gkt_core.cli import gkt
from tests.conftest import LONGEST_SECONDS, ROOT, free_port

README = (ROOT / "README.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_begins_with_the_two_commands() -> None:
    first = _blocks("bash")[0].split("\n")
    commands = [line.split("#")[0].strip() for line in first if line.strip()]
    assert commands == ["make demo", "make test"]
    assert README.index("make demo") < README.index("docs/images/") < README.index("\n## ")


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(
    ("target", "command"),
    [("demo", "gkt demo"), ("test", "pytest"), ("install", "pip install"), ("help", "awk")],
)
def test_make_targets(target: str, command: str) -> None:
    # --always-make: what a clean clone would do; --dry-run: without doing it.
    done = subprocess.run(
        ["make", "--dry-run", "--always-make", target], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert command in done.stdout


def test_make_help_lists_all_targets() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    for target in ("help", "install", "demo", "test", "test-slow", "lint", "clean"):
        assert re.search(rf"make {target}\s", done.stdout), target


def test_the_walk_through_runs(tmp_path: Path) -> None:
    """The two-machine walk-through, as written, on loopback and a free port."""
    (script,) = [block for block in _blocks("bash") if "gkt serve" in block]
    # As written, but for fewer epochs of the server: what it learns is not the point here.
    script = script.replace("--server-epochs 3", "--server-epochs 1")
    script = script.replace("8080", str(free_port()))
    commands = {match[1] for match in re.finditer(r"gkt (\w+ ?\w*)", script)}
    assert {"data split", "export ", "serve ", "edge run", "edge evaluate"} <= commands
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    output = tmp_path / "output"
    with output.open("w") as stream:
        # A session of its own, so that a script that fails half way leaves no server behind.
        shell = subprocess.Popen(
            ["bash", "-euc", script],
            cwd=tmp_path,
            env=environment,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            exit_code = shell.wait(timeout=LONGEST_SECONDS)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGTERM)
    printed = output.read_text()
    assert exit_code == 0, printed
    assert re.search(r"device-0/model\.onnx: 0\.\d+ of 360 test images right", printed)
    assert "This would leave the device in every round (nothing was sent)" in printed


def test_every_other_gkt_command_parses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Options in the README exist: each ``gkt`` line is parsed, not run."""
    # Networks are registered when --networks is parsed.
    (tmp_path / "my_networks.py").write_text(_blocks("python")[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GKT_TOKEN", "as the README exports it")
    for block in _blocks("bash"):
        for line in block.replace("\\\n", " ").splitlines():
            written = line.split("#")[0].split(" &")[0].strip()
            if not written.startswith("gkt "):
                continue
            words = written.split()[1:]
            context = gkt.make_context("gkt", list(words))
            name, command, rest = gkt.resolve_command(context, list(words))
            while isinstance(command, click.Group):
                name, command, rest = command.resolve_command(context, rest)
            assert command is not None, line
            with command.make_context(name or "", rest, resilient_parsing=False):
                pass


def test_exit_codes_are_those_of_the_code() -> None:
    rows = dict(re.findall(r"^\| (\d+) \| `(\w+)`", README, re.MULTILINE))
    by_code: dict[int, str] = {}
    for value in vars(errors).values():
        if isinstance(value, type) and issubclass(value, errors.GKTError):
            by_code.setdefault(value.exit_code, value.__name__)
    assert {int(code): name for code, name in rows.items()} == by_code
    assert re.search(rf"^\| {errors.EXIT_INTERRUPTED} \| ", README, re.MULTILINE)


def test_extras_are_those_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    rows = set(re.findall(r"^\| `\[([\w-]+)\]` \|", README, re.MULTILINE))
    assert rows == set(project["optional-dependencies"])


def test_every_link_into_the_repository_exists() -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", README):
        if not target.startswith(("http://", "https://")):
            assert (ROOT / target).exists(), target
