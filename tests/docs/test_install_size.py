"""What a device installs, weighed in a fresh environment. Slow: downloads packages."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from gkt_core.bundle.manifest import Bundle
from tests.conftest import ROOT

LIMITS_MEGABYTES = {"edge": 285, "edge-portable": 180, "edge, --no-deps": 150}
MACHINES = [
    ("linux", "x86_64", "3.11", "onnxruntime-training-cpu"),
    ("linux", "x86_64", "3.12", "onnxruntime-training-cpu"),
    ("linux", "x86_64", "3.13", "onnxruntime"),
    ("linux", "x86_64", "3.14", "onnxruntime"),
    ("linux", "aarch64", "3.11", "onnxruntime"),
    ("linux", "armv7l", "3.12", "onnxruntime"),
    ("darwin", "arm64", "3.12", "onnxruntime-training-cpu"),
    ("darwin", "arm64", "3.13", "onnxruntime"),
    ("win32", "AMD64", "3.11", "onnxruntime-training-cpu"),
    ("win32", "ARM64", "3.11", "onnxruntime"),
]


@pytest.mark.parametrize(("platform", "machine", "python", "expected"), MACHINES)
def test_every_machine_gets_one_onnxruntime(platform: str, machine: str, python: str, expected: str) -> None:
    environment = {"sys_platform": platform, "platform_machine": machine, "python_version": python}
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    chosen = [
        package.name
        for package in map(Requirement, extras["edge"])
        if package.name.startswith("onnxruntime") and package.marker and package.marker.evaluate(environment)
    ]
    assert chosen == [expected]
    assert "onnxruntime>=1.19" in extras["edge-portable"], "everywhere"


@pytest.mark.slow
@pytest.mark.parametrize("extra", LIMITS_MEGABYTES)
def test_edge_extras_are_light_and_without_torch(tmp_path: Path, digits_bundle: Bundle, extra: str) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    python = venv / "bin" / "python"
    pip = f"{python} -m pip install --quiet -c {ROOT / 'constraints.txt'}"
    if extra.endswith("--no-deps"):
        # The page's own line, with this tree for the package.
        page = (ROOT / "docs" / "devices.md").read_text()
        (line,) = re.findall(r"^pip install .*gkt_edge-.*--no-deps.*$", page, re.M)
        install = line.replace("pip install", pip).replace('"$(ls gkt_edge-*.whl)"', str(ROOT))
        assert str(ROOT) in install.removeprefix(pip)
    else:
        install = f"{pip} '{ROOT}[{extra}]'"
    subprocess.run(install, shell=True, check=True, timeout=600)
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format=freeze"], check=True, capture_output=True, text=True
    ).stdout.lower()
    assert "torch" not in listed
    packages = venv / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    num_bytes = sum(
        path.stat().st_size
        for folder in packages.iterdir()
        if not folder.name.startswith("pip")
        for path in ([folder] if folder.is_file() else folder.rglob("*"))
        if path.is_file()
    )
    assert num_bytes < LIMITS_MEGABYTES[extra] * 1e6, num_bytes
    subprocess.run([venv / "bin" / "gkt", "edge", "run", "--help"], check=True, capture_output=True)
    shown = subprocess.run(
        [
            *(venv / "bin" / "gkt", "profile", "edge", "--artifacts", digits_bundle.path),
            *("--batch-size", "8", "--steps", "2", "--warmup", "1", "--cold-runs", "1", "--json"),
        ],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=300,
    )
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["workloads"]
