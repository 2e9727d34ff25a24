"""The import contracts of pyproject.toml refuse what they say in every room, and guard every room."""

from __future__ import annotations

import graphlib
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import grimp
import pytest
from importlinter.api import read_configuration
from importlinter.application import use_cases
from importlinter.application.ports.reporting import Report

from tests.conftest import ROOT

CONFIGURATION = str(ROOT / "pyproject.toml")
PRODUCT: list[str] = read_configuration(CONFIGURATION)["session_options"]["root_packages"]
CONTRACTS: list[dict[str, Any]] = read_configuration(CONFIGURATION)["contracts_options"]
FORBIDDEN = [contract for contract in CONTRACTS if contract["type"] == "forbidden"]

# Where torch may be imported. A room is a module or package right below one of the five packages.
WITH_TORCH = {
    "gkt_core.algorithms": "trains in simulations",
    "gkt_core.nn": "the networks",
    "server_app.trainer": "the process that trains",
    "edge_export": "traces networks",
    "profiling": "measures all of them",
}

# The name by which a distribution is imported, where it is another one.
IMPORT_NAMES = {
    "backports.zstd": "backports",
    "onnxruntime-training-cpu": "onnxruntime",
    "pillow": "PIL",
}


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    """Every import of the product, those of types and those inside functions included."""
    return grimp.build_graph(*PRODUCT, include_external_packages=True, cache_dir=None)


def rooms(graph: grimp.ImportGraph) -> set[str]:
    return {room for package in PRODUCT for room in graph.find_children(package)}


def is_in(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def plants() -> Iterator[tuple[str, str, str]]:
    """A contract, a room that it guards, a module that may not be imported there."""
    for contract in FORBIDDEN:
        for room in contract["source_modules"]:
            for module in contract["forbidden_modules"]:
                yield contract["name"], room, module
    layers = next(contract for contract in CONTRACTS if contract["type"] == "layers")
    floors = [[name.strip() for name in floor.split("|")] for floor in layers["layers"]]
    for floor, names in enumerate(floors):
        above = [name for upper in floors[:floor] for name in upper]
        for room in names:
            for module in (*above, *(name for name in names if name != room)):
                yield layers["name"], room, module


def plant(copy: Path, room: str, modules: list[str]) -> str:
    """Import modules inside a function of a new module of the room, or of the room's own where it is one.

    Returns:
        The module's name.
    """
    imports = "".join(f"\n    import {module}" for module in modules)
    place = copy / room.replace(".", "/")
    name = f"{room}.planted" if place.is_dir() else room
    with (copy / f"{name.replace('.', '/')}.py").open("a", encoding="utf-8") as file:
        file.write(f"\n\ndef planted():{imports}\n")
    return name


def test_each_forbidden_import_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stands in a copy of the product, in a module that is in no list, inside a function."""
    for package in PRODUCT:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=lambda _, names: _not_source(names))
    planted: dict[str, set[str]] = {}
    for _, room, module in plants():
        planted.setdefault(room, set()).add(module)
    names = {room: plant(tmp_path, room, sorted(modules)) for room, modules in planted.items()}
    for package in PRODUCT:
        (tmp_path / package / "wheel.py").write_text(f"import {package}.spoke\n")
        (tmp_path / package / "spoke.py").write_text(f"def planted():\n    import {package}.wheel\n")
        # What is imported already is not looked for on the path.
        monkeypatch.delitem(sys.modules, package, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    reports: list[Report] = []
    monkeypatch.setattr(use_cases, "render_report", reports.append)

    assert not use_cases.lint_imports(CONFIGURATION, cache_dir=None, no_logo=True)

    (report,) = reports
    refused = set()
    circles = set()
    for contract, check in report.get_contracts_and_checks():
        for importer, imported in _links(check.metadata):
            refused.add((contract.name, importer, imported))
        circles |= set(check.metadata.get("cycle_breakers_by_package", {}))
    assert {(name, names[room], module) for name, room, module in plants()} - refused == set()
    assert set(PRODUCT) <= circles


def _not_source(names: list[str]) -> set[str]:
    return {name for name in names if "." in name and not name.endswith(".py")} | {"results", "__pycache__"}


def _links(metadata: Any) -> Iterator[tuple[str, str]]:
    """Each import of the chains in what a contract found, however deep its kind of contract keeps them."""
    if isinstance(metadata, dict):
        if "line_numbers" in metadata:
            yield metadata["importer"], metadata["imported"]
        else:
            for value in metadata.values():
                yield from _links(value)
    elif isinstance(metadata, list | tuple):
        for value in metadata:
            yield from _links(value)


def test_every_package_and_every_room_stands_in_a_contract(graph: grimp.ImportGraph) -> None:
    """A new room is guarded against torch, or is named among those that may import it."""
    guarded = {room for contract in FORBIDDEN for room in contract["source_modules"]}
    without_torch = {
        room
        for contract in FORBIDDEN
        if "torch" in contract["forbidden_modules"]
        for room in contract["source_modules"]
    }
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}

    assert packages == set(PRODUCT)
    assert {package for package in packages if not any(is_in(room, package) for room in guarded)} == set()
    known = without_torch | set(WITH_TORCH)
    assert {room for room in rooms(graph) if not any(is_in(room, place) for place in known)} == set()
    assert set(WITH_TORCH) <= rooms(graph) | set(PRODUCT)
    assert set(WITH_TORCH) & without_torch == set()


def test_no_contract_looks_away() -> None:
    """Chains over other modules count, and what is ignored must still be there."""
    options = {option for contract in CONTRACTS for option in contract}

    assert options == {
        "name",
        "type",
        "layers",
        "ancestors",
        "source_modules",
        "forbidden_modules",
        "ignore_imports",
    }


def test_no_module_is_in_a_circle_with_its_package(graph: grimp.ImportGraph) -> None:
    """The contract looks at siblings; a package and the modules inside it are none."""
    graph = deepcopy(graph)
    for contract in CONTRACTS:
        if contract["type"] == "acyclic_siblings":
            for ignored in contract.get("ignore_imports", ()):
                importer, imported = ignored.split(" -> ")
                graph.remove_import(importer=importer, imported=imported)
    order = graphlib.TopologicalSorter(
        {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    )

    order.prepare()


def test_a_device_imports_nothing_that_its_extra_does_not_install(graph: grimp.ImportGraph) -> None:
    """What reaches the device over gkt_core counts as well."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    # Photos need the extra data, and say so where it is missing.
    requirements = project["dependencies"] + extras["edge-portable"] + extras["data"]
    names = {re.split(r"[\[><=;]", requirement)[0].strip() for requirement in requirements}
    installed = {IMPORT_NAMES.get(name, name) for name in names}

    reached = {
        module
        for module in graph.find_upstream_modules("edge_runtime", as_package=True)
        if graph.is_module_squashed(module) and module not in sys.stdlib_module_names
    }

    # From Python 3.14, the standard library's instead of backports.zstd.
    assert reached - installed - {"compression"} == set()
