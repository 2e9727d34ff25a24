"""The tables of the first release."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "runs",
        sa.Column("run_id", sa.String, primary_key=True),
        sa.Column("config", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("progress", sa.Text, nullable=False),
        sa.Column("trainer_seen_at", sa.Float, nullable=False),
    )
    op.create_table(
        "clients",
        sa.Column("run_id", sa.String, primary_key=True),
        sa.Column("client_id", sa.String, primary_key=True),
        sa.Column("num_examples", sa.BigInteger, nullable=False),
        sa.Column("num_validation_examples", sa.BigInteger, nullable=False),
        sa.Column("engine", sa.String, nullable=False),
    )
    op.create_table(
        "shards",
        sa.Column("run_id", sa.String, primary_key=True),
        sa.Column("round_num", sa.BigInteger, primary_key=True),
        sa.Column("client_id", sa.String, primary_key=True),
        sa.Column("split", sa.String, primary_key=True),
        sa.Column("index", sa.BigInteger, primary_key=True),
        sa.Column("sha256", sa.String, nullable=False),
        sa.Column("num_samples", sa.BigInteger, nullable=False),
        sa.Column("upload_bytes", sa.BigInteger, nullable=False),
        sa.Column("blob", sa.String, nullable=False),
    )
    op.create_table(
        "reports",
        sa.Column("run_id", sa.String, primary_key=True),
        sa.Column("round_num", sa.BigInteger, primary_key=True),
        sa.Column("client_id", sa.String, primary_key=True),
        sa.Column("report", sa.Text, nullable=False),
    )
    op.create_table(
        "rounds",
        sa.Column("run_id", sa.String, primary_key=True),
        sa.Column("round_num", sa.BigInteger, primary_key=True),
        sa.Column("opened_at", sa.Float, nullable=False),
        sa.Column("collected_at", sa.Float, nullable=False),
        sa.Column("trained_at", sa.Float, nullable=False),
        sa.Column("metrics", sa.Text, nullable=False),
    )
    op.create_table(
        "traffic",
        sa.Column("run_id", sa.String, primary_key=True),
        sa.Column("kind", sa.String, primary_key=True),
        sa.Column("round_num", sa.BigInteger, primary_key=True),
        sa.Column("num_bytes", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    """Drop them, and all runs with them."""
    for table in ("traffic", "rounds", "reports", "shards", "clients", "runs"):
        op.drop_table(table)
