"""docs/python.md and its notebook do what they say: they are run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

from edge_export import save_combined
from gkt_core.nn import build_combined_network
from tests.conftest import LONGEST_SECONDS, ROOT
from tests.docs.pages import blocks_of, text_of

EXAMPLES = ROOT / "docs" / "examples"
NOTEBOOK = EXAMPLES / "first_round.ipynb"
FIRST, LAST, _LOADING = blocks_of("docs/python.md", "python")


def lines_of(code: str) -> list[str]:
    return [line for line in code.splitlines() if line.strip()]


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]


def pictures(notebook: Any) -> int:
    outputs = [each for cell in notebook.cells for each in cell.get("outputs", ())]
    return sum("image/png" in each.get("data", {}) for each in outputs)


def test_ten_lines_are_a_first_round(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(lines_of(FIRST)) <= 10
    exec(compile(FIRST, "docs/python.md", "exec"), {})
    accuracy = float(capsys.readouterr().out.split()[0])
    assert 0 <= accuracy <= 1


def test_five_lines_load_the_final_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(lines_of(LAST)) == 5
    network = build_combined_network("resnet4", "resnet55", 3)
    save_combined(network, tmp_path / "model.onnx", image_size=8)
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "test.npz", images=images, labels=np.arange(4) % 3)
    monkeypatch.chdir(tmp_path)
    exec(compile(LAST, "docs/python.md", "exec"), {})
    assert len(capsys.readouterr().out.strip(" []\n").split()) == 4


def test_the_notebook_begins_with_ten_lines_and_shows_pictures() -> None:
    notebook = read(NOTEBOOK)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert len(lines_of(first.source)) <= 10
    assert pictures(notebook) >= 3
    assert all(cell.outputs for cell in notebook.cells if cell.cell_type == "code")
    # What a machine or a user is called is not for others.
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert [place for place in ("/root/", "/home/", "/tmp/", "site-packages") if place in text] == []
    assert "(examples/first_round.ipynb)" in text_of("docs/python.md")


@pytest.mark.slow  # minutes; every line of it has a test of its own that is not
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it, in a kernel of its own: simulations, an export, a server and two devices."""
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    shutil.copy(EXAMPLES / "fedprox.py", tmp_path)
    notebook = read(NOTEBOOK)
    shown = pictures(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    client = NotebookClient(
        notebook,
        timeout=int(LONGEST_SECONDS),
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    # An error in a cell is one here.
    client.execute()
    assert pictures(notebook) == shown
    last = notebook.cells[-1].outputs[0]["text"]
    assert "below 1e-3: True" in last and "591,322" in f"{int(last.split()[-2]):,}"
