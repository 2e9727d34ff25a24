"""docs/adr/README.md lists every decision once, in order, by its number."""

from __future__ import annotations

import re

from tests.conftest import ROOT

ADR = ROOT / "docs" / "adr"


def test_every_decision_is_listed() -> None:
    text = (ADR / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^- \[(\d+)\]\(([^)]+)\): \S.*\.$", text, re.MULTILINE)
    pages = sorted(path.name for path in ADR.glob("[0-9]*.md"))

    assert listed == [(str(int(page[:4])), page) for page in pages]


def test_every_decision_has_its_own_number() -> None:
    for page in ADR.glob("[0-9]*.md"):
        assert page.read_text(encoding="utf-8").startswith(f"# {int(page.name[:4])}. "), page.name
