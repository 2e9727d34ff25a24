"""Let the tests of the page open it in a browser."""

from tests.server_app.page.browsing import chromium, open_page

__all__ = ["chromium", "open_page"]
