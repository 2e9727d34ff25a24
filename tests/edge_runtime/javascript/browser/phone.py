"""A phone for tests: a browser of its size and speed, what its owner does in it, and what it keeps."""

from __future__ import annotations

import base64
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, CDPSession, Page, expect

from tests.conftest import LONGEST_SECONDS
from tests.edge_runtime.javascript.test_whole_run import CLASSES, here
from tests.server_app.served import Serve

LONGEST = 1000 * LONGEST_SECONDS
SLOWER = 4
# Every file that the page keeps of its run, as base64.
KEPT = """async () => {
  const opened = indexedDB.open(localStorage.getItem("gkt-place"));
  await new Promise((resolve, reject) => { opened.onsuccess = resolve; opened.onerror = reject; });
  const files = opened.result.transaction("files").objectStore("files");
  const told = (request) => new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result); request.onerror = reject;
  });
  const [names, values] = [await told(files.getAllKeys()), await told(files.getAll())];
  opened.result.close();
  const text = (bytes) => Array.from(bytes, (each) => String.fromCharCode(each)).join("");
  return Object.fromEntries(names.map((name, index) => [name, btoa(text(values[index]))]));
}"""


def phone(chromium: Browser, locale: str = "en-GB", scheme: str = "light") -> BrowserContext:
    """A browser of a phone's size, which trusts the server's own authority, as a person would have it do."""
    context = chromium.new_context(
        ignore_https_errors=True,
        viewport={"width": 390, "height": 844},
        has_touch=True,
        locale=locale,
        color_scheme="dark" if scheme == "dark" else "light",
        reduced_motion="reduce",
    )
    context.set_default_timeout(LONGEST)
    return context


def protocol(page: Page) -> CDPSession:
    """Chromium's own protocol, for what Playwright has no word for."""
    return page.context.new_cdp_session(page)


def slow_down(page: Page) -> None:
    """Let the page's own thread be as slow as a phone's; Chromium slows down no worker."""
    protocol(page).send("Emulation.setCPUThrottlingRate", {"rate": SLOWER})


def page_link(server: Serve) -> str:
    """The link with which a phone joins."""
    link = here((server.data_dir / "join").read_text().strip())
    return link.removeprefix("gkt+").replace("/#", "/join#")


def address(server: Serve) -> str:
    """The page, for whom it knows already."""
    return page_link(server).partition("#")[0]


def choose(page: Page, folder: Path) -> None:
    """Put all photos of a folder into their classes."""
    for label, name in enumerate(CLASSES):
        files = sorted((folder / name).iterdir()) if (folder / name).is_dir() else []
        page.locator(f'input[data-add="{label}"]').set_input_files(files)
        expect(page.locator(f'fieldset[data-class="{name}"] li')).to_have_count(len(files), timeout=LONGEST)


def kept_files(page: Page) -> dict[str, bytes]:
    """What the page keeps of its run, by name."""
    told: dict[str, str] = page.evaluate(KEPT)
    return {name: base64.b64decode(text) for name, text in told.items()}
