"""Real services and servers for what is deployed."""

from tests.server_app.served import extracted_small, serve, small
from tests.server_app.store.conftest import bucket, postgres_server, postgres_url

__all__ = ["bucket", "extracted_small", "postgres_server", "postgres_url", "serve", "small"]
