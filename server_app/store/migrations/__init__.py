"""Alembic's migrations of the run's database."""
