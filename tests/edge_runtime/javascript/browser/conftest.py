"""Fixtures of the tests of the page at /join: servers."""

from __future__ import annotations

from tests.server_app.served import serve

__all__ = ["serve"]
