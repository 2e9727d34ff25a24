"""The tree of errors is the one that its module draws."""

import inspect
import re

import pytest

from gkt_core import errors
from gkt_core.errors import GKTError, MissingExtraError

CLASSES = {
    name: found
    for name, found in inspect.getmembers(errors, inspect.isclass)
    if found.__module__ == errors.__name__
}


def drawn_tree():
    """``{name: (parent, exit code)}`` of the drawing; a class without a code has its parent's."""
    tree, path = {}, []
    for line in errors.__doc__.splitlines():
        drawn = re.fullmatch(r"    ((?:[|+ ][ -]{2} )*)(\w+Error)\s+(?:(\d+)\s+)?\S.*", line)
        if not drawn:
            continue
        depth, name, code = len(drawn[1]) // 4, drawn[2], drawn[3]
        path[depth:] = [name]
        parent = path[depth - 1] if depth else None
        tree[name] = (parent, int(code) if code else tree[parent][1])
    return tree


def test_the_drawing_is_the_module():
    built = {
        name: (found.__base__.__name__ if found is not GKTError else None, found.exit_code)
        for name, found in CLASSES.items()
    }
    assert drawn_tree() == built


def test_the_drawing_is_read():
    assert drawn_tree()["GKTError"] == (None, 1)
    assert drawn_tree()["ShardError"] == ("ProtocolError", 3)
    assert len(drawn_tree()) >= 15


@pytest.mark.parametrize("name", list(CLASSES))
def test_every_error_has_a_stable_name_and_a_reason(name):
    error = CLASSES[name]("what was found")
    assert error.code == name
    assert str(error) == "what was found"


def test_codes_of_different_branches_differ_and_leave_the_shells_own_alone():
    codes = [found.exit_code for found in CLASSES.values() if found.__base__ in (GKTError, Exception)]
    assert len(codes) == len(set(codes))
    assert all(1 <= code < 126 for code in codes)
    assert errors.EXIT_INTERRUPTED == 130


def test_a_missing_extra_names_the_module_and_the_remedy():
    error = MissingExtraError.for_module("torchvision", "profile")
    assert str(error) == "the module torchvision is not installed: pip install 'gkt-edge[profile]'"
    assert error.exit_code == 2
