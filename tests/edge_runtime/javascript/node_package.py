"""The TypeScript device, built once for all tests; they are skipped loudly where Node is missing."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import LONGEST_SECONDS, ROOT, shared_folder

PACKAGE = ROOT / "edge_runtime" / "javascript"
DIST = PACKAGE / "dist"
MAIN = DIST / "src" / "node" / "main.js"
LEAST_NODE = (20, 19)


def missing() -> str:
    """What is missing to build it; empty for nothing."""
    node = shutil.which("node")
    if node is None:
        return "Node is not installed"
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    found = re.match(r"v(\d+)\.(\d+)\.", version)
    if found is None or (int(found[1]), int(found[2])) < LEAST_NODE:
        return f"Node is {version}, expected 20.19 or later"
    if not (PACKAGE / "node_modules" / "typescript").is_dir():
        return f"the packages are not there: make js-install, or npm ci --ignore-scripts in {PACKAGE.name}/"
    return ""


@pytest.fixture(scope="session")
def gkt_edge(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command gkt-edge, built from its sources."""
    if reason := missing():
        pytest.skip(f"the TypeScript device is NOT TESTED: {reason}")

    node = shutil.which("node") or ""

    def build(folder: Path) -> None:
        done = subprocess.run(
            [node, PACKAGE / "node_modules" / "typescript" / "bin" / "tsc", "-p", PACKAGE],
            capture_output=True,
            text=True,
            check=False,
            timeout=LONGEST_SECONDS,
        )
        assert done.returncode == 0, done.stdout

    shared_folder(tmp_path_factory, "gkt-edge", build)
    return [node, str(MAIN)]


def run_node(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a script in Node."""
    return subprocess.run(
        [shutil.which("node") or "", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=LONGEST_SECONDS,
        cwd=cwd,
    )
