"""What goes wrong while a phone takes part is said in words, and nothing is lost."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, CDPSession, expect

from tests.conftest import free_port, until
from tests.edge_runtime.javascript.browser.phone import (
    LONGEST,
    address,
    choose,
    page_link,
    phone,
    protocol,
)
from tests.edge_runtime.javascript.test_whole_run import bundle, photos, status_of
from tests.server_app.served import Serve

__all__ = ["bundle"]

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif("GKT_TEST_DATA" not in os.environ, reason="needs GKT_TEST_DATA with cifar10.npz"),
]

SETTINGS = (
    "--host", "0.0.0.0", "--clients", "1", "--rounds", "2", "--server-epochs", "1", "--batch-size", "4",
    "--local-epochs", "8",
)  # fmt: skip


def test_a_server_that_is_away_is_asked_until_it_is_back(
    chromium: Browser, bundle: Path, serve: Callable[..., Serve], tmp_path: Path
) -> None:
    """Killed while the phone trains; the page says what it waits for, and goes on by itself."""
    again = ("--artifacts", bundle, "--port", free_port(), *SETTINGS)
    server = serve(*again)
    with phone(chromium, "de-DE") as context:
        page = context.new_page()
        page.goto(page_link(server))
        choose(page, photos(tmp_path / "photos", 2))
        page.get_by_role("button", name="Zeigen, was gesendet würde").click()
        page.get_by_role("checkbox").check(timeout=LONGEST)
        page.get_by_role("button", name="Mitmachen").click()
        expect(page.locator('[data-phase="train"]')).to_be_visible(timeout=LONGEST)
        (before,) = status_of(server).clients
        server.abandon()
        away = page.get_by_text(
            "Der Server antwortet nicht. Er wird immer wieder gefragt; nichts ist verloren"
        )
        expect(away).to_be_visible(timeout=LONGEST)
        # A pause and going on say their own, and then this again.
        page.get_by_role("button", name="Pause", exact=True).click()
        expect(away).to_be_hidden()
        page.get_by_role("button", name="Weiter", exact=True).click()
        expect(away).to_be_visible()
        server = serve(*again)
        expect(away).to_be_hidden(timeout=LONGEST)
        expect(page.get_by_role("heading", name="4. Fertig")).to_be_visible(timeout=LONGEST)
    (after,) = status_of(server).clients
    assert after.client_id == before.client_id and status_of(server).phase == "finished"


# Chromium asks how much room there is before a first write, and again when that is used up, or old.
SOME_BYTES = 3_000_000
# Presses the button for a pause, or the one to go on, if there is one.
PRESS = """[...document.querySelectorAll("button")]
  .find((button) => ["Pause", "Go on"].includes(button.textContent))?.click()"""


def room(session: CDPSession, server: Serve, quota_bytes: int | None) -> None:
    """Let the page's storage hold so much and no more; as much as the browser gives for None."""
    parts = urlsplit(address(server))
    quota = {} if quota_bytes is None else {"quotaSize": quota_bytes}
    session.send("Storage.overrideQuotaForOrigin", {"origin": f"{parts.scheme}://{parts.netloc}", **quota})


def test_a_phone_without_room_says_so_and_goes_on_once_there_is_some(
    chromium: Browser, bundle: Path, serve: Callable[..., Serve], tmp_path: Path
) -> None:
    server = serve("--artifacts", bundle, *SETTINGS)
    with phone(chromium) as context:
        page = context.new_page()
        session = protocol(page)
        said = page.get_by_role("alert").get_by_text("This phone has no room left.")
        try_again = page.get_by_role("button", name="Try again")
        # Enough for which run it is, and not for photos.
        room(session, server, 100_000)
        page.goto(page_link(server))
        choose(page, photos(tmp_path / "photos", 2))
        show = page.get_by_role("button", name="Show what would be sent")
        show.click()
        expect(said).to_be_visible(timeout=LONGEST)
        # The photos are where they were.
        room(session, server, SOME_BYTES)
        try_again.click()
        expect(page.locator("fieldset li")).to_have_count(48)
        show.click()
        page.get_by_role("checkbox").check(timeout=LONGEST)
        page.get_by_role("button", name="Take part").click()
        expect(page.locator('[data-phase="train"]')).to_be_visible(timeout=LONGEST)
        # A pause saves, until it cannot.
        room(session, server, 1)
        until(lambda: said.is_visible() or page.evaluate(PRESS), "a phone without room")
        room(session, server, None)
        try_again.click()
        expect(page.get_by_role("heading", name="4. Done")).to_be_visible(timeout=LONGEST)
    assert status_of(server).phase == "finished" and len(status_of(server).clients) == 1
