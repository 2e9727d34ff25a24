"""Which device has which name, and what its classes are."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "identities",
        sa.Column("run_id", sa.String, primary_key=True),
        sa.Column("client_id", sa.String, primary_key=True),
        sa.Column("key_sha256", sa.String, nullable=False),
        sa.Column("class_names", sa.Text, nullable=False),
        sa.Column("samples_sha256", sa.String, nullable=False),
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("identities")
