"""The page at /join in a real browser, against a real server over TLS, beside a Python device."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.conftest import LONGEST_SECONDS
from tests.edge_runtime.javascript.test_whole_run import CLASSES, bundle, here, photos, status_of
from tests.server_app.served import Serve

__all__ = ["bundle"]

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif("GKT_TEST_DATA" not in os.environ, reason="needs GKT_TEST_DATA with cifar10.npz"),
]

ROUNDS = 2
LONGEST = 1000 * LONGEST_SECONDS


def phone(chromium: Browser, locale: str = "en-GB") -> BrowserContext:
    """A browser of a phone's size, which trusts the server's own authority, as a person would have it do."""
    context = chromium.new_context(
        ignore_https_errors=True, viewport={"width": 390, "height": 844}, has_touch=True, locale=locale
    )
    context.set_default_timeout(LONGEST)
    return context


def page_link(server: Serve) -> str:
    """The link with which a phone joins."""
    link = here((server.data_dir / "join").read_text().strip())
    return link.removeprefix("gkt+").replace("/#", "/join#")


def choose(page: Page, folder: Path) -> None:
    """Put all photos of a folder into their classes."""
    for label, name in enumerate(CLASSES):
        files = sorted((folder / name).iterdir())
        page.locator(f'input[data-add="{label}"]').set_input_files(files)
        expect(page.locator(f'fieldset[data-class="{name}"] li')).to_have_count(len(files), timeout=LONGEST)


def test_a_phone_beside_a_python_device(
    chromium: Browser, bundle: Path, serve: Callable[..., Serve], tmp_path: Path
) -> None:
    server = serve(
        "--artifacts", bundle, "--host", "0.0.0.0", "--clients", "2", "--rounds", ROUNDS,
        "--server-epochs", "1", "--batch-size", "16",
    )  # fmt: skip
    link = page_link(server)
    own = tmp_path / "run" / "join"
    own.write_text(here(own.read_text()))
    python = server.device(photos(tmp_path / "first", 0), tmp_path / "python")
    with phone(chromium) as context:
        page = context.new_page()
        told: list[str] = []
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.goto(link)
        expect(page.get_by_role("heading", name="1. Your photos")).to_be_visible(timeout=LONGEST)
        # The secret is in no history and no screenshot.
        assert "#" not in page.url
        assert page.evaluate("crossOriginIsolated") is True
        show = page.get_by_role("button", name="Show what would be sent")
        expect(show).to_be_disabled()
        choose(page, photos(tmp_path / "second", 1))
        page.screenshot(path=tmp_path / "photos.png", full_page=True)
        show.click()
        expect(page.locator("figure canvas")).to_have_count(8, timeout=LONGEST)
        page.screenshot(path=tmp_path / "preview.png", full_page=True)
        start = page.get_by_role("button", name="Take part")
        expect(start).to_be_disabled()
        assert {each.client_id for each in status_of(server).clients} <= {"first"}
        page.get_by_role("checkbox").check()
        start.click()
        page.screenshot(path=tmp_path / "training.png", full_page=True)
        expect(page.get_by_role("heading", name="4. Done")).to_be_visible(timeout=LONGEST)
        assert python.ended() == 0, python.log.read_text()
        page.locator('input[data-add="try"]').set_input_files(next((tmp_path / "second" / "bird").iterdir()))
        answer = page.locator("[data-answer]")
        expect(answer).to_be_visible(timeout=LONGEST)
        assert answer.get_attribute("data-answer") in CLASSES
        page.screenshot(path=tmp_path / "done.png", full_page=True)
        # Nothing that the strict policy forbids was tried.
        assert not [line for line in told if "Content Security Policy" in line], told
        # Opened again without the link, it has the model at once.
        page.goto(re.sub("#.*", "", link))
        expect(page.get_by_role("heading", name="4. Done")).to_be_visible(timeout=LONGEST)
    status = status_of(server)
    assert status.phase == "finished" and len(status.finished_rounds) == ROUNDS
    (joined,) = (each for each in status.clients if each.client_id != "first")
    assert joined.client_id.startswith("phone-") and joined.engine == "portable"
    assert not status.quarantined


def test_a_tab_that_is_closed_in_the_middle_goes_on(
    chromium: Browser, bundle: Path, serve: Callable[..., Serve], tmp_path: Path
) -> None:
    """A photo that cannot be read, a pause, a closed tab: each is said, and nothing is lost."""
    server = serve(
        "--artifacts", bundle, "--host", "0.0.0.0", "--clients", "1", "--rounds", 2,
        "--server-epochs", "1", "--batch-size", "4", "--local-epochs", "40",
    )  # fmt: skip
    with phone(chromium, "de-DE") as context:
        page = context.new_page()
        page.goto(page_link(server))
        expect(page.get_by_role("heading", name="1. Ihre Fotos")).to_be_visible(timeout=LONGEST)
        folder = photos(tmp_path / "photos", 2)
        (broken := tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno picture")
        (apple := tmp_path / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
        page.locator('input[data-add="any"]').set_input_files([broken, apple])
        expect(page.get_by_role("status")).to_contain_text("broken.png lässt sich nicht als Bild lesen")
        expect(page.get_by_role("status")).to_contain_text("IMG_1.HEIC ist HEIC")
        choose(page, folder)
        page.get_by_role("button", name="Zeigen, was gesendet würde").click()
        page.get_by_role("checkbox").check(timeout=LONGEST)
        page.get_by_role("button", name="Mitmachen").click()
        expect(page.locator('[data-phase="train"]')).to_be_visible(timeout=LONGEST)
        page.get_by_role("button", name="Pause", exact=True).click()
        expect(page.get_by_text("Pause. Alles ist gespeichert.")).to_be_visible(timeout=LONGEST)
        (before,) = status_of(server).clients
        page.close()

        page = context.new_page()
        page.goto(page_link(server).partition("#")[0])
        page.get_by_text("Was geschah").click(timeout=LONGEST)
        expect(
            page.get_by_text(re.compile(r"goes on after round 0 and [1-9]\d* steps of the next"))
        ).to_be_visible(timeout=LONGEST)
        # A second tab does not take part a second time.
        other = context.new_page()
        other.goto(page_link(server).partition("#")[0])
        expect(other.get_by_role("alert")).to_contain_text("open in another tab", timeout=LONGEST)
        other.close()
        expect(page.get_by_role("heading", name="4. Fertig")).to_be_visible(timeout=LONGEST)
    (after,) = status_of(server).clients
    assert after.client_id == before.client_id and status_of(server).phase == "finished"


def test_once_loaded_it_opens_without_a_network(
    chromium: Browser, bundle: Path, serve: Callable[..., Serve], tmp_path: Path
) -> None:
    server = serve("--artifacts", bundle, "--clients", "1", "--rounds", "1")
    with phone(chromium) as context:
        page = context.new_page()
        page.goto(f"{server.info['url']}/join")
        link = page.get_by_role("textbox", name="Link")
        expect(link).to_be_visible(timeout=LONGEST)
        # Resolves once everything is kept.
        page.evaluate("navigator.serviceWorker.ready.then(() => true)")
        context.set_offline(True)
        page.reload()
        expect(link).to_be_visible(timeout=LONGEST)
        # A link that was cut by a shell, and another server's, in words.
        text = (server.data_dir / "join").read_text().strip()
        link.fill(text.partition("&")[0])
        page.get_by_role("button", name="Open").click()
        expect(page.get_by_role("alert")).to_contain_text("does not say bundle")
        page.get_by_role("textbox", name="Link").fill(re.sub("//[^/]+", "//gkt.example.org", text))
        page.get_by_role("button", name="Open").click()
        expect(page.get_by_role("link", name="gkt.example.org")).to_be_visible()
        # The right one, without a network: it can be tried again.
        page.get_by_role("textbox", name="Link").fill(text)
        page.get_by_role("button", name="Open").click()
        expect(page.get_by_role("alert")).to_contain_text("Is this phone online?", timeout=LONGEST)
        context.set_offline(False)
        page.get_by_role("button", name="Try again").click()
        expect(page.get_by_role("heading", name="1. Your photos")).to_be_visible(timeout=LONGEST)
