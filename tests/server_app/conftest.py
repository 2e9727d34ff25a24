"""Fixtures of all tests of the server."""

from tests.server_app.served import extracted_small, finished_small, serve, small
from tests.server_app.server_fixtures import empty_run, server_bundle

__all__ = ["empty_run", "extracted_small", "finished_small", "serve", "server_bundle", "small"]
