"""The wheel: all that is needed is in it, and without an extra every command still tells its options."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import gkt_core
from tests.conftest import LONGEST_SECONDS, ROOT
from tests.docs.pages import all_commands

PACKAGES = ("gkt_core", "edge_export", "edge_runtime", "server_app", "profiling")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, as what is built leaves a folder behind."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in (*PACKAGES, "pyproject.toml", "README.md", "LICENSE"):
        source = ROOT / name
        if source.is_dir():
            made = shutil.ignore_patterns("__pycache__", "node_modules")
            shutil.copytree(source, folder / name, ignore=made)
        else:
            shutil.copy(source, folder)
    # The README's own command.
    (command,) = re.findall(r"^pip wheel .*$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    arguments = [sys.executable, "-m", *command.split(), "--quiet"]
    subprocess.run(arguments, cwd=folder, check=True, timeout=LONGEST_SECONDS)
    (built,) = (folder / "dist").glob("gkt_edge-*.whl")
    return built


@pytest.mark.slow
def test_everything_is_in_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata_name,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        metadata = Parser().parsestr(archive.read(metadata_name).decode())
    wanted = [
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for pattern in ("*.py", "*.j2", "py.typed", "static/*.*", "static/join/*")
        for path in (ROOT / package).rglob(pattern)
    ]
    assert set(wanted) <= names, sorted(set(wanted) - names)
    assert sum(name.endswith("py.typed") for name in wanted) == len(PACKAGES)
    assert any("/migrations/versions/" in name for name in wanted)
    assert any(name.endswith(".html.j2") for name in wanted)
    assert {"page.js", "page.css", "icon.svg"} <= {name.rpartition("/")[2] for name in names}
    assert not [name for name in names if name.startswith(("tests/", "docs/", "edge_runtime/javascript"))]
    assert metadata["Version"] == gkt_core.__version__
    assert metadata["Requires-Python"] == "<3.15,>=3.11"
    for field in ("Author", "Keywords", "Summary", "License-Expression", "Description-Content-Type"):
        assert metadata[field], field
    assert len(metadata.get_all("Classifier", [])) > 5


@pytest.mark.slow
def test_without_an_extra_every_command_tells_its_options(wheel: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    pip: list[str | Path] = [
        tmp_path / "venv/bin/python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "-c",
        ROOT / "constraints.txt",
    ]
    subprocess.run([*pip, wheel], check=True, timeout=LONGEST_SECONDS)
    for name, command in all_commands().items():
        done = subprocess.run(
            [tmp_path / "venv/bin/gkt", *name.split()[1:], "--help"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "COLUMNS": "200"},
            timeout=LONGEST_SECONDS,
        )
        assert done.returncode == 0, f"{name}: {done.stderr}"
        options = [param for param in command.params if getattr(param, "hidden", False) is False]
        for param in options:
            if param.opts[0].startswith("--"):
                assert param.opts[0] in done.stdout, f"{name} does not tell {param.opts[0]}"
