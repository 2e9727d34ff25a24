"""``gkt profile all``: every command it would run exists, and what is there is kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from gkt_core.cli import Group
from gkt_core.cli import gkt as gkt_group
from gkt_core.errors import RunFailedError
from profiling.cli.all import AllOptions, Step, is_done, steps
from profiling.cli.profile import profile
from profiling.frame.processes import ProcessGroup
from profiling.frame.registry import MEASUREMENTS
from profiling.readme.tables import RESULTS
from profiling.server.web.report import Ingest
from tests.conftest import Gkt
from tests.profiling.frame.test_diff import measured

pytest_plugins = ["tests.profiling.profile_fixtures"]


@pytest.mark.parametrize("quick", [(), ("--quick",)])
def test_every_command_parses(tmp_path: Path, quick: tuple[str, ...]) -> None:
    arguments = ["all", "--out-dir", str(tmp_path / "out"), "--list", *quick]
    listed = CliRunner().invoke(profile, arguments, catch_exceptions=False)
    assert listed.exit_code == 0
    lines = listed.stdout.splitlines()
    assert len(lines) == len(steps(AllOptions(tmp_path)))
    for line in lines:
        words = line.split()[1:]
        context = gkt_group.make_context("gkt", list(words))
        name, command, rest = gkt_group.resolve_command(context, list(words))
        while isinstance(command, Group):
            name, command, rest = command.resolve_command(context, rest)
        assert command is not None, line
        with command.make_context(name or "", rest):
            pass
    assert list(tmp_path.iterdir()) == []


def test_every_measurement_is_a_step(tmp_path: Path) -> None:
    measured_by_steps = {step.arguments[1] for step in steps(AllOptions(tmp_path)) if step.suffixes[:1]}
    assert measured_by_steps >= set(MEASUREMENTS)


def test_only_whole_reports_are_kept(tmp_path: Path) -> None:
    step, options = Step("edge", ("profile", "edge")), AllOptions(tmp_path, work_dir=tmp_path)
    assert not is_done(step, options)
    for suffix in (".md", ".html", ".png"):
        (tmp_path / f"edge{suffix}").touch()
    (tmp_path / "edge.json").write_text("{}")
    assert not is_done(step, options)
    (tmp_path / "edge.json").write_text(json.dumps(measured(1)))
    assert is_done(step, options)
    (tmp_path / "edge.png").unlink()
    assert not is_done(step, options)


def test_what_needs_a_program_that_is_missing_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ingest, "programs", ("no-such-program",))
    monkeypatch.setattr(Ingest, "modules", ("json", "no_such_module"))
    arguments = ["all", "--out-dir", str(tmp_path / "out"), "--work-dir", str(tmp_path), "--only", "ingest"]
    result = CliRunner().invoke(profile, [*arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    assert "ingest: left out, no-such-program and no_such_module not installed" in result.stderr
    assert json.loads(result.stdout) == {}


@pytest.mark.parametrize("quick", [(), ("--quick",)])
def test_a_verdict_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: tuple[str, ...]
) -> None:
    def run(group: ProcessGroup, name: str, arguments: Sequence[str], *, log: Path) -> None:
        for file in arguments[arguments.index("--out") :][1::2]:
            Path(file).parent.mkdir(exist_ok=True)
            Path(file).write_text((RESULTS / f"{name}.json").read_text())
        if name == "load":
            raise RunFailedError("memory grows")

    monkeypatch.setattr(ProcessGroup, "run", run)
    arguments = ["all", "--out-dir", str(tmp_path / "out"), "--work-dir", str(tmp_path), "--only", "load"]
    result = CliRunner().invoke(profile, [*arguments, "--only", "poisoning", *quick])
    assert "load: memory grows" in result.stderr
    assert (tmp_path / "out" / "poisoning.json").is_file()
    if quick:
        assert result.exit_code == 0
    else:
        assert isinstance(result.exception, RunFailedError) and "must not be: load" in str(result.exception)


@pytest.mark.system
def test_one_step_is_measured_and_not_again(gkt: Gkt, gkt_here: Gkt, tmp_path: Path) -> None:
    command = ("profile", "all", "--out-dir", "out", "--quick", "--only", "artifacts")
    # As a stop in the middle of the export leaves it.
    (tmp_path / "gkt-profile" / "artifacts").mkdir(parents=True)
    (tmp_path / "gkt-profile" / "artifacts" / "half").touch()
    done = gkt(*command)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "gkt-profile" / "artifacts" / "manifest.json").is_file()
    assert not (tmp_path / "out").exists()
    again = gkt_here(*command)
    assert again.returncode == 0
    assert "artifacts: there already" in again.stderr
    # The demo that traffic needs is missing: its own words, its own exit code.
    failed = gkt_here("profile", "all", "--out-dir", "out", "--only", "traffic")
    assert failed.returncode == 2
    assert "holds no run" in failed.stderr
    unknown = gkt_here("profile", "all", "--out-dir", "out", "--only", "everything")
    assert unknown.returncode == 2
    assert "unknown step everything, expected some of artifacts, compare" in unknown.stderr


@pytest.mark.slow
def test_everything(gkt: Gkt, tmp_path: Path) -> None:
    done = gkt("profile", "all", "--out-dir", "out", "--quick", timeout=1800)
    assert done.returncode == 0, done.stderr
    chosen = [step for step in steps(AllOptions(tmp_path)) if step.suffixes and not step.missing]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"{step.name}{suffix}" for step in chosen for suffix in step.suffixes
    }
    edge = json.loads((tmp_path / "out" / "edge.json").read_text())
    assert edge["engine"] == "portable" and edge["sustained"]["windows"]
    plan = json.loads((tmp_path / "out" / "plan.json").read_text())
    assert [row["name"] for row in plan["validation"]["rows"]] == [
        "device part, s a round", "server part, s a round", "round, s", "bytes in, all", "bytes out, all",
    ]  # fmt: skip
    traffic = json.loads((tmp_path / "out" / "traffic.json").read_text())["measured"]
    for kind in traffic["kinds"]:
        assert abs(kind["relative_difference"]) < 0.01, kind
    assert traffic["wire"]["unexplained_bytes"] == {"upload": 0, "download": 0}
