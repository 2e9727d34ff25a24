"""Which samples a device joined with, for databases whose table of identities was made without."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the column where it is missing: 0003 was made without it for a while, and has it since."""
    columns = sa.inspect(op.get_bind()).get_columns("identities")
    if "samples_sha256" not in {column["name"] for column in columns}:
        op.add_column("identities", sa.Column("samples_sha256", sa.String, nullable=False, server_default=""))


def downgrade() -> None:
    """Leave it: the code of 0003 writes it."""
