"""Every registered measurement: its command, and its documents as table, page, picture and block."""

from __future__ import annotations

import dataclasses
import json
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gkt_core.config.run_config import RunConfig
from gkt_core.errors import MissingExtraError, RunFailedError
from profiling.cli.profile import profile
from profiling.frame.command import measurement_command
from profiling.frame.diff.changes import compare_documents
from profiling.frame.machine import describe_machine
from profiling.frame.measurement import Announce, Measurement
from profiling.frame.registry import MEASUREMENTS, OTHERS, measurement, page_of, report_of
from profiling.frame.sections import Document, Section
from profiling.readme.tables import RESULTS, block
from tests.conftest import ROOT

COMMITTED = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in RESULTS.glob("*.json")}
FORMAT = (ROOT / "docs" / "results-format.md").read_text(encoding="utf-8")


def _web() -> dict[str, Any]:
    """A document of ``gkt profile web``, of which none is committed."""
    server = {"bytes_per_cpu_second": 4e8, "spread": [3e8, 5e8], "peak_bytes": 60_000_000}
    server |= {"large_body_bytes": 1_000_000, "seventh_client_seconds": None}
    every = {"not_measured": ["TLS"], "settings": {"turns": 1}, "machine": describe_machine()}
    return {"schema": "gkt-profile-web/1", "servers": {"gkt": server, "waitress": server}, **every}


def _busy() -> dict[str, Any]:
    """A document of ``gkt profile busy``, until one of a machine that did nothing else is committed."""
    spread = {"median": 2.0, "lowest": 1.0, "highest": 3.0, "n": 3}
    rates = ("samples_per_second", "samples_per_second_beside_a_busy_core", "times_slower")
    way = dict.fromkeys((*rates, "share_of_as_openmp_comes"), spread) | {"environment": {}, "num_threads": 2}
    names = ("as_openmp_comes", "as_gkt_sets_it", "one_thread")
    seconds = dict.fromkeys(("alone", "beside_a_busy_core"), spread)
    demo = {
        "limit": 400,
        "rounds": 1,
        "server_epochs": 2,
        "training_seconds": seconds,
        "times_slower": spread,
    }
    settings = {"batch_size": 32, "image_size": 16}
    every = {"not_measured": ["a GPU"], "settings": settings, "machine": describe_machine()}
    return {"schema": "gkt-profile-busy/1", "ways": dict.fromkeys(names, way), "demo": demo, **every}


DOCUMENTS: dict[str, dict[str, Any]] = {
    "busy": _busy(),
    **COMMITTED,
    "web": _web(),
    "diff": compare_documents(
        COMMITTED["edge"], COMMITTED["edge-ort-training"], ("edge", "edge-ort-training")
    ),
}


def test_every_report_has_a_document() -> None:
    schemas = {measurement(name).schema for name in MEASUREMENTS} | set(OTHERS)
    assert schemas == {document["schema"] for document in DOCUMENTS.values()}
    without = schemas - {document["schema"] for document in COMMITTED.values()}
    without -= {"gkt-profile-busy/1"}
    assert without == {"gkt-profile-web/1", "gkt-profile-diff/1"}, "commit what is measured"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_is_shown(name: str, tmp_path: Path) -> None:
    document = DOCUMENTS[name]
    assert {"schema", "settings", "machine", "not_measured"} <= set(document)
    path = tmp_path / f"{name}.json"
    path.write_text(json.dumps(document))
    page, report = page_of(document), report_of(document)
    suffixes = (".md", ".html", ".png") if page.plots else (".md", ".html")
    outs = [tmp_path / f"again{suffix}" for suffix in suffixes]
    arguments = ["show", str(path), *(part for out in outs for part in ("--out", str(out)))]
    shown = CliRunner().invoke(profile, arguments, catch_exceptions=False, env={"COLUMNS": "300"})
    assert shown.exit_code == 0
    markdown, html = (out.read_text(encoding="utf-8") for out in outs[:2])
    assert markdown.startswith(f"# {page.title}\n")
    assert html.count("data:image/svg+xml;base64,") == len(page.plots)
    # A title wraps at the width of its table.
    on_screen = " ".join(shown.stdout.split())
    for section in page.sections:
        assert section.title in on_screen and f"## {section.title}\n" in markdown
    if report.shows_machine:
        assert f"Not measured: {document['not_measured'][0]}" in markdown
    if page.plots:
        assert outs[2].read_bytes().startswith(b"\x89PNG")
    said = block(name, tmp_path)
    for section in report.readme(document):
        assert f"{section.title}:\n" in said
        assert all(row[-1] in said for row in section.rows)


@pytest.mark.parametrize("name", COMMITTED)
def test_the_files_beside_a_committed_document_are_its_own(name: str, tmp_path: Path) -> None:
    out = tmp_path / "again.md"
    arguments = ["show", str(RESULTS / f"{name}.json"), "--out", str(out)]
    assert CliRunner().invoke(profile, arguments, catch_exceptions=False).exit_code == 0
    assert out.read_text() == (RESULTS / f"{name}.md").read_text(), (
        f"gkt profile show {name}.json --out {name}.md"
    )
    assert (RESULTS / f"{name}.html").is_file()
    assert (RESULTS / f"{name}.png").is_file() == bool(page_of(COMMITTED[name]).plots)


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if name != "diff"])
def test_a_document_is_compared(name: str) -> None:
    document = DOCUMENTS[name]
    same = compare_documents(document, document, ("a", "b"))
    assert same["num_changed"] == 0 and same["changes"] and same["conditions"] == []
    assert page_of(same).sections


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_key_is_documented(name: str) -> None:
    for key in set(DOCUMENTS[name]) - {"schema", "settings", "machine", "not_measured"}:
        assert f"`{key}" in FORMAT, f"{name}: say in docs/results-format.md what {key} is"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from profiling.cli.profile import profile; from click.testing import CliRunner; "
        "shown = CliRunner().invoke(profile, ['--help']); assert shown.exit_code == 0, shown.output; "
        "print(shown.output, sorted({'torch', 'numpy', 'onnxruntime', 'jinja2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.rstrip().endswith("[]"), done.stdout
    for entry in MEASUREMENTS.values():
        assert entry.summary in done.stdout


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_a_command_tells_what_it_does(name: str) -> None:
    shown = CliRunner().invoke(profile, [name, "--help"], catch_exceptions=False)
    assert shown.exit_code == 0
    made = measurement(name)
    assert made.name == name and made.not_measured
    assert made.missing() or callable(pkgutil.resolve_name(made.measured_by))
    assert dataclasses.is_dataclass(made.options)
    assert "--out PATH" in shown.stdout and f"gkt profile {name}" in shown.stdout
    # Options of a command are named once, in its dataclass, and every one of them says what it is.
    for param in measurement_command(made).params:
        assert getattr(param, "help", None), param.name


@dataclasses.dataclass(frozen=True, slots=True)
class _Options:
    lost: int = 0
    work: Path = Path("some/where")
    config: RunConfig = dataclasses.field(default_factory=RunConfig)


class _Small(Measurement[_Options]):
    """Lose some."""

    name = "small"
    options = _Options
    not_measured = ("others",)

    def measure(self, options: _Options, announce: Announce) -> dict[str, Any]:
        announce("losing")
        if options.lost < 0:
            raise ModuleNotFoundError("no module", name="nothing")
        return {"lost": options.lost, "not_measured": ["more"], "settings": {"engine": "none"}}

    def title(self, document: Document) -> str:
        return "Lost"

    def sections(self, document: Document) -> list[Section]:
        return [Section("Lost", ("n",), [(str(document["lost"]),)])]

    def failures(self, document: Document) -> list[str]:
        return [f"{document['lost']} are lost"] if document["lost"] else []


def test_a_document_has_what_every_document_has() -> None:
    document = _Small().document(_Options(lost=2))
    assert document["schema"] == "gkt-profile-small/1"
    assert document["not_measured"] == ["others", "more"]
    assert document["machine"] == describe_machine()
    settings = document["settings"]
    assert (settings["lost"], settings["work"], settings["engine"]) == (2, "where", "none")
    assert settings["config"]["rounds"] == RunConfig().rounds
    json.dumps(document)


def test_failures_end_the_command_after_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("profiling.frame.output.page_of", _Small().page)
    command = measurement_command(_Small())
    out = tmp_path / "small.json"
    failed = CliRunner().invoke(command, ["--lost", "3", "--out", str(out)])
    assert isinstance(failed.exception, RunFailedError) and str(failed.exception) == "3 are lost"
    assert json.loads(out.read_text())["lost"] == 3
    assert failed.stderr.rstrip().endswith("losing")
    assert CliRunner().invoke(command, ["--json"]).exit_code == 0
    refused = CliRunner().invoke(command, ["--lost", "-1"])
    assert isinstance(refused.exception, MissingExtraError) and "gkt-edge[all]" in str(refused.exception)
    no_picture = CliRunner().invoke(command, ["--out", str(tmp_path / "small.png")])
    assert "has no picture" in str(no_picture.exception)
