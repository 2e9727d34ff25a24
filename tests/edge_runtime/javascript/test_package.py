"""The TypeScript package: its own tests pass, its types are the server's, what it brings is locked."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from server_app import create_app
from server_app.run_folder import RunContext
from server_app.web.openapi import openapi_document
from tests.conftest import ROOT
from tests.docs.pages import all_commands, options_of
from tests.edge_runtime.javascript.messages import TYPES, write_types
from tests.edge_runtime.javascript.node_package import DIST, PACKAGE, run_node
from tests.server_app.server_fixtures import TOKEN

pytest_plugins = ["tests.server_app.web.api_fixtures"]

# Of packages that are installed to run a device; those that only build it are not given to anybody.
PERMISSIVE = {"MIT", "Apache-2.0", "BSD-3-Clause", "ISC", "0BSD"}
# libvips, which sharp links dynamically, and installs only where photos are read.
LGPL = re.compile(r"node_modules/@img/sharp-(libvips-|win32-|wasm32)")
MOST_LINES_OF_A_MODULE, MOST_MODULES = 400, 14


def test_its_own_tests_pass(gkt_edge: list[str]) -> None:
    done = run_node("--test", *sorted((DIST / "tests").glob("*.test.js")), cwd=PACKAGE)
    assert done.returncode == 0, done.stdout[-5000:]
    (passed,) = re.findall(r"^# pass (\d+)$", done.stdout, re.MULTILINE)
    assert int(passed) >= len(re.findall(r"^test\(", all_sources("tests"), re.MULTILINE))


def test_its_sources_are_formatted(gkt_edge: list[str]) -> None:
    prettier = PACKAGE / "node_modules" / "prettier" / "bin" / "prettier.cjs"
    done = run_node(prettier, "--check", ".", cwd=PACKAGE)
    assert done.returncode == 0, f"{done.stderr}: npx prettier --write ."


def all_sources(folder: str) -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted((PACKAGE / folder).rglob("*.ts")))


def test_types_of_messages_are_the_servers(gkt_edge: list[str], run: RunContext, tmp_path: Path) -> None:
    write_types(openapi_document(create_app(run, TOKEN)), tmp_path / "openapi.ts")
    assert (tmp_path / "openapi.ts").read_text() == TYPES.read_text(), "make js-types, if the change is meant"


def locked() -> dict[str, dict[str, Any]]:
    packages: dict[str, dict[str, Any]] = json.loads((PACKAGE / "package-lock.json").read_text())["packages"]
    return packages


def test_what_it_brings_is_locked_and_may_be_used() -> None:
    manifest = json.loads((PACKAGE / "package.json").read_text())
    for name, entry in locked().items():
        if not name:
            assert entry["dependencies"] == manifest["dependencies"]
            continue
        registry = "https://registry.npmjs.org/"
        assert entry["integrity"] and entry.get("resolved", registry).startswith(registry), name
        if not entry.get("dev") and not LGPL.match(name):
            assert set(re.split(r" OR | AND ", entry["license"].strip("()"))) & PERMISSIVE, name


def test_what_runs_without_options_is_little() -> None:
    needed = {
        name
        for name, entry in locked().items()
        if name and not any(entry.get(kind) for kind in ("dev", "optional", "devOptional"))
    }
    assert needed == {f"node_modules/{name}" for name in ("@noble/hashes", "fflate", "lossless-json")}


@pytest.mark.parametrize("folder", [path for path in sorted((PACKAGE / "src").rglob("*")) if path.is_dir()])
def test_modules_are_small_and_folders_not_crowded(folder: Path) -> None:
    modules = list(folder.glob("*.ts"))
    assert len(modules) <= MOST_MODULES
    for module in modules:
        text = module.read_text(encoding="utf-8")
        assert text.count("\n") <= MOST_LINES_OF_A_MODULE, module
        # Each says first why it is there; generated ones that they are.
        assert text.removeprefix("#!/usr/bin/env node\n").startswith("/**"), module


def test_what_a_page_uses_needs_no_node() -> None:
    """Everything outside of node/ runs in a page's worker."""
    for module in (PACKAGE / "src").rglob("*.ts"):
        if "node" not in module.parts[len(PACKAGE.parts) :]:
            text = module.read_text(encoding="utf-8")
            assert not re.search(r'from "node:|/node/|\bBuffer\b|\bprocess\.', text), module


def test_node_comes_from_the_repository_alone() -> None:
    """No folder of npm is committed."""
    ignored = (ROOT / ".gitignore").read_text()
    assert "/edge_runtime/javascript/node_modules/" in ignored and "/edge_runtime/javascript/dist/" in ignored


OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]+")


@pytest.mark.parametrize("page", ["docs/mobile.md", "edge_runtime/javascript/README.md"])
def test_pages_name_options_that_there_are(gkt_edge: list[str], page: str) -> None:
    done = run_node(gkt_edge[1], "--help")
    assert done.returncode == 0
    options = set(OPTION.findall(done.stdout)) | {"--help"}
    text = (ROOT / page).read_text(encoding="utf-8").replace("\\\n", " ")
    # By its name in its own folder, elsewhere by its file: no index holds it.
    lines = re.findall(r"^.*(?:gkt-edge|/main\.js) (run .*)$", text, re.MULTILINE)
    assert lines and all(set(OPTION.findall(line)) <= options for line in lines)


def test_its_options_are_those_of_the_python_device(gkt_edge: list[str]) -> None:
    """The same word means the same in both commands."""
    listed = set(re.findall(r"^  (--[\w-]+)", run_node(gkt_edge[1], "--help").stdout, re.MULTILINE))
    assert listed - {"--version"} <= options_of(all_commands()["gkt edge run"])


def test_what_it_weighs_is_said(gkt_edge: list[str]) -> None:
    text = (PACKAGE / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[^|]+`) \|[^|]+\| (\d+) \|$", text, re.MULTILINE)
    assert len(rows) == 4
    for names, megabytes in rows:
        folders = [PACKAGE / "node_modules" / name for name in re.findall(r"`([^`]+)`", names)]
        files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
        weight = sum(file.stat().st_size for file in files) / 1e6
        # Other systems have other libraries of sharp's.
        assert weight == pytest.approx(int(megabytes), rel=0.5, abs=1), names
