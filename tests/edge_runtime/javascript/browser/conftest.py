"""Fixtures of the tests of the page at /join: a real browser, and servers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.server_app.served import serve

__all__ = ["serve"]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, without a window."""
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("the page at /join is NOT TESTED: Chromium is not installed: apt-get install chromium")
    with sync_playwright() as playwright:
        # Tests may run as root, in a container without much shared memory.
        arguments = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=found, args=arguments)
        yield browser
        browser.close()
