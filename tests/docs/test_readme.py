"""What the README says, and what it said before other pages did, run or compared with the code."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from gkt_core import errors
from tests.conftest import LONGEST_SECONDS, ROOT, free_port
from tests.docs.pages import all_commands, blocks_of, text_of

README = text_of("README.md")
RUNNING = text_of("docs/running.md")


def test_is_read_in_one_go() -> None:
    assert len(README.splitlines()) <= 180


def test_begins_with_the_two_commands() -> None:
    first = blocks_of("README.md", "bash")[0].split("\n")
    commands = [line.split("#")[0].strip() for line in first if line.strip()]
    assert commands == ["make demo", "make test"]
    assert README.index("make demo") < README.index("docs/images/") < README.index("\n## ")


def test_own_images_are_the_third_thing() -> None:
    assert README.index("\n## ") == README.index("\n## Your own images\n")


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
    for target in ("help", "install", "demo", "test", "test-system", "test-slow", "lint", "clean"):
        assert re.search(rf"make {target}\s", done.stdout), target


@pytest.mark.system
def test_the_walk_through_runs(tmp_path: Path) -> None:
    """The two-machine walk-through, as written, on loopback and a free port."""
    (script,) = [block for block in blocks_of("README.md", "bash") if "wait $device" in block]
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


def test_exit_codes_are_those_of_the_code() -> None:
    rows = dict(re.findall(r"^\| (\d+) \| `(\w+)`", RUNNING, re.MULTILINE))
    by_code: dict[int, str] = {}
    for value in vars(errors).values():
        if isinstance(value, type) and issubclass(value, errors.GKTError):
            by_code.setdefault(value.exit_code, value.__name__)
    assert {int(code): name for code, name in rows.items()} == by_code
    assert re.search(rf"^\| {errors.EXIT_INTERRUPTED} \| ", RUNNING, re.MULTILINE)


def test_environment_variables_are_those_of_the_commands() -> None:
    params = [param for command in all_commands().values() for param in command.params]
    variables = {str(param.envvar) for param in params if param.envvar}
    assert set(re.findall(r"\bGKT_[A-Z_]+\b", RUNNING)) == variables


def test_extras_are_those_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    rows = set(re.findall(r"^\| `\[([\w-]+)\]` \|", README, re.MULTILINE))
    assert rows == set(project["optional-dependencies"])


def test_numbers_are_those_of_the_results() -> None:
    results = ROOT / "profiling" / "results"
    networks = json.loads((results / "compare.json").read_text())["networks"]
    sizes = {network["name"]: network["num_parameters"] for network in networks}
    assert f"ResNet-8 ({sizes['resnet8']:,} parameters)" in README
    # What is left of ResNet-56 without the devices' extractor.
    assert f"ResNet-55 ({sizes['resnet56'] - sizes['extractor']:,} parameters)" in README
    cells = json.loads((results / "small" / "table1.json").read_text())["cells"]
    measured = {
        cell["row"]: (cell["mean_test_accuracy"], cell["mean_upload_bytes"])
        for cell in cells
        if cell["column"] == "CIFAR-10 IID"
    }
    fedgkt = measured["FedGKT, ResNet-56 (ResNet-8 on devices)"]
    fedavg, central = measured["FedAvg, ResNet-56"], measured["Centralised, ResNet-56"]
    said = " ".join(README.split())
    for text in (
        f"FedGKT reached {fedgkt[0]:.1f} % and sent {fedgkt[1] / 1e9:.1f} GB",
        f"FedAvg {fedavg[0]:.1f} % with {fedavg[1] / 1e6:.1f} MB",
        f"central training {central[0]:.1f} %",
    ):
        assert text in said


def test_what_a_sample_and_an_update_weigh_is_what_was_measured() -> None:
    results = ROOT / "profiling" / "results"
    networks = json.loads((results / "compare.json").read_text())["networks"]
    (update,) = (4 * network["num_parameters"] for network in networks if network["name"] == "resnet56")
    ratio = json.loads((results / "traffic.json").read_text())["measured"]["compression_ratio"]
    said = " ".join(text_of("docs/research.md").split())
    assert f"update of FedAvg is {update / 1e6:.1f} MB a device" in said
    assert f"features cost about {ratio * 16 * 32 * 32 / 1e3:.0f} kB a sample" in said


def test_the_picture_is_of_the_run_that_is_shown() -> None:
    (output,) = blocks_of("README.md", "text")
    accuracy, alone = re.findall(r"test accuracy (0\.\d+) .* alone on each device (0\.\d+)", output)[0]
    (caption,) = re.findall(r"!\[([^]]*)\]\(docs/images/demo-digits\.png\)", README)
    assert f"{100 * float(accuracy):.1f} %" in caption and f"{100 * float(alone):.1f} %" in caption
