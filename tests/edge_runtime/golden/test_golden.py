"""The committed golden file is what the real modules give, so that other languages are held to them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.edge_runtime.golden.make_golden import GOLDEN, made

# Functions of a float differ between C libraries, the sides of a picture between versions of Pillow.
RELATIVE, LEVEL = 1e-4, 1


def same(found: Any, expected: Any, where: str) -> None:
    """Equal, numbers within what libraries round differently."""
    assert type(found) is type(expected), where
    if isinstance(found, dict):
        assert found.keys() == expected.keys(), where
        for name, value in found.items():
            same(value, expected[name], f"{where}.{name}")
    elif isinstance(found, list):
        assert len(found) == len(expected), where
        for index, value in enumerate(found):
            same(value, expected[index], f"{where}[{index}]")
    elif isinstance(found, float):
        assert found == pytest.approx(expected, rel=RELATIVE, abs=1e-5), where
    elif isinstance(found, int) and ".fits." in where:
        assert abs(found - expected) <= LEVEL, where
    else:
        assert found == expected, where


def test_the_file_is_what_the_modules_give() -> None:
    fresh, kept = json.loads(json.dumps(made())), json.loads(GOLDEN.read_text(encoding="utf-8"))
    same(fresh.pop("near"), kept.pop("near"), "near")
    assert fresh == kept, "python -m tests.edge_runtime.golden.make_golden, if the change is meant"
