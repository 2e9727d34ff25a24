"""Declare the tables of a run; migrations/ makes them, and a test compares the two."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

metadata = sa.MetaData()


def _table(name: str, *columns: sa.Column[Any]) -> sa.Table:
    return sa.Table(name, metadata, sa.Column("run_id", sa.String, primary_key=True), *columns)


runs = _table(
    "runs",
    sa.Column("config", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("progress", sa.Text, nullable=False, default=""),
    sa.Column("trainer_seen_at", sa.Float, nullable=False, default=0.0),
    sa.Column("lease_owner", sa.String, nullable=False, server_default=""),
    sa.Column("lease_until", sa.Float, nullable=False, server_default="0"),
)
clients = _table(
    "clients",
    sa.Column("client_id", sa.String, primary_key=True),
    sa.Column("num_examples", sa.BigInteger, nullable=False),
    sa.Column("num_validation_examples", sa.BigInteger, nullable=False),
    sa.Column("engine", sa.String, nullable=False),
)
identities = _table(
    "identities",
    sa.Column("client_id", sa.String, primary_key=True),
    sa.Column("key_sha256", sa.String, nullable=False),
    sa.Column("class_names", sa.Text, nullable=False),
    sa.Column("samples_sha256", sa.String, nullable=False),
)
credentials = _table(
    "credentials",
    sa.Column("client_id", sa.String, primary_key=True),
    sa.Column("secret_sha256", sa.String, nullable=False),
    sa.Column("revoked", sa.Boolean, nullable=False),
    sa.Column("rotates", sa.Boolean, nullable=False),
)
enrolments = _table(
    "enrolments",
    sa.Column("enrolment", sa.String, primary_key=True),
    sa.Column("token_sha256", sa.String, nullable=False),
    sa.Column("client_id", sa.String, nullable=False),
    sa.Column("uses", sa.BigInteger, nullable=False),
    sa.Column("used", sa.BigInteger, nullable=False),
    sa.Column("expires_at", sa.Float, nullable=False),
)
shards = _table(
    "shards",
    sa.Column("round_num", sa.BigInteger, primary_key=True),
    sa.Column("client_id", sa.String, primary_key=True),
    sa.Column("split", sa.String, primary_key=True),
    sa.Column("index", sa.BigInteger, primary_key=True),
    sa.Column("sha256", sa.String, nullable=False),
    sa.Column("num_samples", sa.BigInteger, nullable=False),
    sa.Column("upload_bytes", sa.BigInteger, nullable=False),
    sa.Column("blob", sa.String, nullable=False),
)
reports = _table(
    "reports",
    sa.Column("round_num", sa.BigInteger, primary_key=True),
    sa.Column("client_id", sa.String, primary_key=True),
    sa.Column("report", sa.Text, nullable=False),
)
rounds = _table(
    "rounds",
    sa.Column("round_num", sa.BigInteger, primary_key=True),
    sa.Column("opened_at", sa.Float, nullable=False, default=0.0),
    sa.Column("collected_at", sa.Float, nullable=False, default=0.0),
    sa.Column("trained_at", sa.Float, nullable=False, default=0.0),
    sa.Column("metrics", sa.Text, nullable=False, default="{}"),
)
traffic = _table(
    "traffic",
    sa.Column("kind", sa.String, primary_key=True),
    sa.Column("round_num", sa.BigInteger, primary_key=True),
    sa.Column("num_bytes", sa.BigInteger, nullable=False, default=0),
)
