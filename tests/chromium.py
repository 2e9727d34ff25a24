"""Debian's Chromium for tests of pages, once for the process: Playwright drives one at a time."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# Chromium's own sandbox wants privileges that containers do not give; the page is ours. /dev/shm
# is small in many containers. What it would ask its makers for is not asked.
FLAGS = (
    "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking",
    "--no-first-run", "--disable-component-update", "--disable-default-apps",
)  # fmt: skip


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The browser, without a window; without one its tests say so and are skipped."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("pages are NOT TESTED in a browser: Chromium is not installed: apt-get install chromium")
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - most tests need none

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()
