"""The whole way by keyboard alone, readable in light and dark at a phone's width."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.edge_runtime.javascript.browser.phone import LONGEST, address, page_link, phone
from tests.edge_runtime.javascript.test_whole_run import CLASSES, bundle, photos, status_of
from tests.server_app.page.browsing import check_readable
from tests.server_app.served import Serve

__all__ = ["bundle"]

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif("GKT_TEST_DATA" not in os.environ, reason="needs GKT_TEST_DATA with cifar10.npz"),
]

MOST_TABS = 80


def go_to(page: Page, selector: str) -> None:
    """Press Tab until an element has the focus."""
    for _ in range(MOST_TABS):
        if page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"no key leads to {selector}")


def press(page: Page, selector: str, key: str = "Enter") -> None:
    go_to(page, selector)
    page.keyboard.press(key)


def readable(page: Page) -> None:
    """In both colours."""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        check_readable(page)


def test_by_keyboard_alone(
    chromium: Browser, bundle: Path, serve: Callable[..., Serve], tmp_path: Path
) -> None:
    server = serve(
        "--artifacts", bundle, "--host", "0.0.0.0", "--clients", "1", "--rounds", "1",
        "--server-epochs", "1", "--batch-size", "2", "--local-epochs", "8", "--codec", "uint4",
    )  # fmt: skip
    birds = sorted((photos(tmp_path / "photos", 0) / "bird").iterdir())
    with phone(chromium) as context:
        page = context.new_page()
        page.goto(address(server))
        go_to(page, "input[type=text]")
        readable(page)
        page.keyboard.insert_text(page_link(server))
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="1. Your photos")).to_be_visible(timeout=LONGEST)
        with page.expect_file_chooser() as chooser:
            press(page, '[data-add="any"]')
        chooser.value.set_files(birds[:6])
        expect(page.locator('fieldset[data-class="Not sorted yet"] li')).to_have_count(6, timeout=LONGEST)
        # Into a class, on to the next, and one is left out; the focus stays with the photo.
        for left in range(6, 0, -1):
            go_to(page, 'fieldset[data-class="Not sorted yet"] select')
            page.keyboard.press("ArrowDown")
            expect(page.locator('fieldset[data-class="Not sorted yet"] li')).to_have_count(left - 1)
            assert page.evaluate("document.activeElement.matches('select')")
            if left % 2:
                page.keyboard.press("ArrowDown")
                expect(page.locator(":focus")).to_have_value("1")
        expect(page.locator(f'fieldset[data-class="{CLASSES[1]}"] li')).to_have_count(3)
        press(page, f'fieldset[data-class="{CLASSES[1]}"] li button')
        expect(page.locator(f'fieldset[data-class="{CLASSES[1]}"] li')).to_have_count(2)
        expect(page.get_by_role("status")).to_be_focused()
        # What an owner may ask for: another tap than the run's is refused, and may be corrected.
        press(page, "summary")
        go_to(page, 'details input[type="text"]')
        page.keyboard.insert_text("16x8x8")
        readable(page)
        page.locator("section button.main").focus()
        page.keyboard.press("Enter")
        alert = page.get_by_role("alert")
        expect(alert).to_contain_text("The server wants something of this phone that it does not do.")
        expect(alert).to_contain_text("this device was told of")
        readable(page)
        press(page, "button.main")
        go_to(page, 'details input[type="text"]')
        page.keyboard.press("Control+a")
        page.keyboard.insert_text("16x32x32")
        go_to(page, 'details input[inputmode="decimal"]:not([step="1"])')
        page.keyboard.insert_text("3")
        page.locator("section button.main").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="2. What would be sent")).to_be_visible(timeout=LONGEST)
        expect(page.get_by_text("limited to -3..3")).to_be_visible()
        readable(page)
        press(page, "#consent", "Space")
        press(page, "button.main")
        press(page, "button.main")
        expect(page.get_by_text("Paused. Everything is saved.")).to_be_visible(timeout=LONGEST)
        readable(page)
        press(page, "summary")
        readable(page)
        press(page, "button.main")
        expect(page.get_by_role("heading", name="4. Done")).to_be_visible(timeout=LONGEST)
        with page.expect_file_chooser() as chooser:
            press(page, '[data-add="try"]')
        chooser.value.set_files(birds[8])
        expect(page.locator("[data-answer]")).to_be_visible(timeout=LONGEST)
        readable(page)
        page.on("dialog", lambda dialog: dialog.accept())
        press(page, "button.quiet")
        expect(page.get_by_role("status")).to_contain_text("Forgotten.")
        readable(page)
    (client,) = status_of(server).clients
    assert client.engine == "portable" and status_of(server).phase == "finished"
