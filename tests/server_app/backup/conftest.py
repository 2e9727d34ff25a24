"""Real services for backups, and a run that somebody has begun."""

from tests.server_app.store.conftest import bucket, postgres_server, postgres_url

__all__ = ["bucket", "postgres_server", "postgres_url"]
