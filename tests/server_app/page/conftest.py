"""Let the tests of the page open it in a browser."""

from tests.server_app.page.browsing import open_page

__all__ = ["open_page"]
