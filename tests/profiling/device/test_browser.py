"""``gkt profile browser``: its document and its page. No test depends on a measured time."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gkt_core.errors import InputError
from profiling.cli.profile import profile
from profiling.device.browser import measure
from profiling.device.browser.options import BrowserOptions
from profiling.frame.registry import measurement, page_of
from profiling.frame.text import to_markdown
from tests.edge_runtime.javascript.node_package import missing

PLACES = {"python", "node", "chromium"}


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of one tiny run."""
    if (reason := missing()) or shutil.which("chromium") is None:
        pytest.skip(f"gkt profile browser is NOT TESTED: {reason or 'Chromium is not installed'}")
    out = tmp_path_factory.mktemp("report") / "browser.json"
    arguments = ["browser", *measurement("browser").quick, "--json", "--out", str(out)]
    # Of a thread: Playwright drives one browser in each, and that of other tests may be open in this one.
    with ThreadPoolExecutor(1) as threads:
        result = threads.submit(CliRunner().invoke, profile, arguments, catch_exceptions=False).result()
    assert result.exit_code == 0
    printed: dict[str, Any] = json.loads(result.stdout)
    assert printed == json.loads(out.read_text(encoding="utf-8"))
    return printed


@pytest.mark.system
def test_each_place_trained_in_a_process_of_its_own(document: dict[str, Any]) -> None:
    assert set(document["step_ms"]) == set(document["peak_memory_bytes"]) == PLACES
    assert all(time["n"] == 2 and time["median_ms"] > 0 for time in document["step_ms"].values())
    assert document["over_python"]["python"] == 1
    memory = document["peak_memory_bytes"]
    assert all(memory[place] > 30e6 for place in PLACES)
    assert memory["chromium"] > document["empty_page_memory_bytes"] > 0
    assert {"node", "chromium"} <= document["settings"].keys()


@pytest.mark.system
def test_a_report_says_what_memory_is_meant(document: dict[str, Any]) -> None:
    text = to_markdown(page_of(document))
    assert "a page's worker in Chromium" in text and "that holds page and worker" in text
    # A system that does not tell a process's memory.
    blind = document | {
        "peak_memory_bytes": dict.fromkeys(PLACES),
        "empty_page_memory_bytes": None,
    }
    assert "before anything was loaded" not in to_markdown(page_of(blind))


def test_without_the_packages_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "JAVASCRIPT", tmp_path)
    with pytest.raises(InputError, match="make js-install"):
        measure.measure_browser(BrowserOptions(), lambda line: None)
