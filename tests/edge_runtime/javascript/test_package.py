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
from tests.edge_runtime.javascript.messages import device_document
from tests.edge_runtime.javascript.node_package import DIST, PACKAGE, run_node
from tests.server_app.server_fixtures import TOKEN

pytest_plugins = [
    "tests.server_app.server_fixtures",
    "tests.server_app.web.api_fixtures",
    "tests.edge_runtime.javascript.node_package",
]

# Of packages that are installed to run a device; those that only build it are not given to anybody.
PERMISSIVE = {"MIT", "Apache-2.0", "BSD-3-Clause", "ISC", "0BSD"}
# libvips, which sharp links dynamically, and installs only where photos are read.
LGPL = re.compile(r"node_modules/@img/sharp-(libvips-|win32-|wasm32)")
MOST_LINES_OF_A_MODULE, MOST_MODULES = 400, 14


def test_its_own_tests_pass(gkt_edge: list[str]) -> None:
    done = run_node("--test", DIST / "tests", cwd=PACKAGE)
    assert done.returncode == 0, done.stdout[-5000:]
    (passed,) = re.findall(r"^# pass (\d+)$", done.stdout, re.MULTILINE)
    assert int(passed) >= len(re.findall(r"^test\(", all_sources("tests"), re.MULTILINE))


def all_sources(folder: str) -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted((PACKAGE / folder).rglob("*.ts")))


def test_types_of_messages_are_the_servers(gkt_edge: list[str], run: RunContext, tmp_path: Path) -> None:
    document = device_document(openapi_document(create_app(run, TOKEN)))
    (tmp_path / "device.json").write_text(json.dumps(document))
    generator = PACKAGE / "node_modules" / "openapi-typescript" / "bin" / "cli.js"
    done = run_node(generator, tmp_path / "device.json", "-o", tmp_path / "openapi.ts", cwd=PACKAGE)
    assert done.returncode == 0, done.stderr
    kept = (PACKAGE / "src" / "wire" / "openapi.ts").read_text()
    assert (tmp_path / "openapi.ts").read_text() == kept, "make js-types, if the change is meant"


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
        name for name, entry in locked().items() if name and not (entry.get("dev") or entry.get("optional"))
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
        if module.parent.name != "node":
            text = module.read_text(encoding="utf-8")
            assert not re.search(r'from "node:|/node/|\bBuffer\b|\bprocess\.', text), module


def test_node_comes_from_the_repository_alone() -> None:
    """No folder of npm is committed."""
    ignored = (ROOT / ".gitignore").read_text()
    assert "/edge_runtime/javascript/node_modules/" in ignored and "/edge_runtime/javascript/dist/" in ignored
