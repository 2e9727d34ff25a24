"""Fixtures of all tests of the server."""

from tests.server_app.served import serve, small
from tests.server_app.server_fixtures import empty_run, server_bundle

__all__ = ["empty_run", "serve", "server_bundle", "small"]
