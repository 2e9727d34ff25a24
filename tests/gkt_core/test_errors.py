"""The tree of errors is the one that its module draws."""

from __future__ import annotations

import importlib
import inspect
import re

import pytest

from gkt_core import errors
from gkt_core.errors import GKTError, MissingExtraError, needs

CLASSES: dict[str, type[GKTError]] = {
    name: found for name, found in inspect.getmembers(errors, inspect.isclass) if issubclass(found, GKTError)
}


def drawn_tree() -> dict[str, tuple[str | None, int]]:
    """``{name: (parent, exit code)}`` of the drawing; a class without a code has its parent's."""
    tree: dict[str, tuple[str | None, int]] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        drawn = re.fullmatch(r"    ((?:[|+ ][ -]{2} )*)(\w+Error)\s+(?:(\d+)\s+)?\S.*", line)
        if not drawn:
            continue
        depth, name, code = len(drawn[1]) // 4, drawn[2], drawn[3]
        path[depth:] = [name]
        parent = path[depth - 1] if depth else None
        tree[name] = (parent, int(code) if code else tree[path[depth - 1]][1])
    return tree


def test_the_drawing_is_the_module() -> None:
    built = {
        name: (found.__mro__[1].__name__ if found is not GKTError else None, found.exit_code)
        for name, found in CLASSES.items()
    }
    assert drawn_tree() == built


def test_the_drawing_is_read() -> None:
    assert drawn_tree()["GKTError"] == (None, 1)
    assert drawn_tree()["ShardError"] == ("ProtocolError", 3)
    assert len(drawn_tree()) >= 15


@pytest.mark.parametrize("name", list(CLASSES))
def test_every_error_has_a_stable_name_and_a_reason(name: str) -> None:
    error = CLASSES[name]("what was found")
    assert error.code == name
    assert str(error) == "what was found"


def test_codes_of_different_branches_differ_and_leave_the_shells_own_alone() -> None:
    codes = [found.exit_code for found in CLASSES.values() if found.__base__ in (GKTError, Exception)]
    assert len(codes) == len(set(codes))
    assert all(1 <= code < 126 for code in codes)
    assert errors.EXIT_INTERRUPTED == 130


def test_a_missing_extra_names_the_module_and_the_remedy() -> None:
    error = MissingExtraError.for_module("torchvision", "profile")
    assert str(error) == "the module torchvision is not installed: pip install 'gkt-edge[profile]'"
    assert error.exit_code == 2


def test_an_import_that_fails_names_its_extra() -> None:
    with pytest.raises(MissingExtraError, match=r"absent_module is .*gkt-edge\[server\]"), needs("server"):
        importlib.import_module("absent_module.part")
    with pytest.raises(MissingExtraError, match="the module Absent is not installed"), needs("all", "Absent"):
        importlib.import_module("absent_module")


def test_a_function_can_need_an_extra() -> None:
    @needs("server")
    def work(module: str) -> str:
        return importlib.import_module(module).__name__

    assert work("json") == work("json") == "json"
    with pytest.raises(MissingExtraError, match="server"):
        work("absent_module")


def test_a_name_of_ours_that_is_missing_is_no_missing_extra() -> None:
    with pytest.raises(ImportError, match="nothing_such"), needs("server"):
        importlib.import_module("gkt_core.nothing_such")
