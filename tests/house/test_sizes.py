"""No folder of the product and no module grows beyond what one can take in."""

from __future__ import annotations

from collections import Counter

from tests.conftest import ROOT
from tests.house.test_imports import PRODUCT

MODULES = [path for package in PRODUCT for path in sorted((ROOT / package).rglob("*.py"))]

MOST_MODULES = 14
MOST_LINES_OF_A_MODULE = 400


def num_lines(text: bytes) -> int:
    return text.count(b"\n")


def test_no_folder_has_too_many_modules_side_by_side() -> None:
    folders = Counter(str(path.parent.relative_to(ROOT)) for path in MODULES if path.name != "__init__.py")

    assert {folder: modules for folder, modules in folders.items() if modules > MOST_MODULES} == {}


def test_no_module_is_too_long() -> None:
    lines = {str(path.relative_to(ROOT)): num_lines(path.read_bytes()) for path in MODULES}

    assert {module: length for module, length in lines.items() if length > MOST_LINES_OF_A_MODULE} == {}
