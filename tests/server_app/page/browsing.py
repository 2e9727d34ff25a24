"""A page in headless Chromium, for tests: Debian's, driven by Playwright, which brings none of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped] # it has no types
from playwright.sync_api import Browser, Page

from tests.conftest import LONGEST_SECONDS

PHONE, DESK = 390, 1280
OpenPage = Callable[..., Page]


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[OpenPage]:
    """Opens the page of a server; in the end nothing may have gone wrong in it, and nothing have left it."""
    wrong: list[str] = []
    contexts = []

    def start(url: str, width: int = DESK, scheme: str = "light", may_fail: bool = False) -> Page:
        context = chromium.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if scheme == "dark" else "light",
            reduced_motion="reduce",
        )
        contexts.append(context)
        context.set_default_timeout(1000 * LONGEST_SECONDS)
        page = context.new_page()
        if not may_fail:
            page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "request",
            lambda sent: None if sent.url.startswith(url) else wrong.append(f"asks elsewhere: {sent.url}"),
        )
        page.goto(f"{url}/")
        return page

    yield start
    for context in contexts:
        context.close()
    assert wrong == []


def picture(page: Page, name: str) -> None:
    """Keep a picture of the page in ``GKT_SCREENSHOTS``, where a person wants to look at it."""
    if folder := os.environ.get("GKT_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def check_readable(page: Page) -> None:
    """Nothing sticks out to the right, and axe-core has no serious finding."""
    width, shown = page.evaluate(
        "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert width <= shown, f"the page is {width} pixels wide, {shown} are shown"
    violations = Axe().run(page).response["violations"]
    serious = [
        f"{each['id']}: {[node['html'] for node in each['nodes']][:3]}"
        for each in violations
        if each["impact"] in ("serious", "critical")
    ]
    assert serious == []
