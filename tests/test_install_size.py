"""What a device installs, weighed in a fresh environment. Slow: downloads packages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LIMIT_MEGABYTES = 285


@pytest.mark.slow
def test_edge_extra_is_light_and_without_torch(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    python = venv / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", f"{ROOT}[edge]"]
    subprocess.run([str(part) for part in install], check=True, timeout=600)
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
    assert num_bytes < LIMIT_MEGABYTES * 1e6
    subprocess.run([venv / "bin" / "gkt", "edge", "run", "--help"], check=True, capture_output=True)
