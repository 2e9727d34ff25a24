"""Who may train a run, and until when."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the two columns."""
    op.add_column("runs", sa.Column("lease_owner", sa.String, nullable=False, server_default=""))
    op.add_column("runs", sa.Column("lease_until", sa.Float, nullable=False, server_default="0"))


def downgrade() -> None:
    """Drop them."""
    for column in ("lease_until", "lease_owner"):
        op.drop_column("runs", column)
