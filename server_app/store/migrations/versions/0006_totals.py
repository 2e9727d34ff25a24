"""Totals of traffic: a status reads a row a kind, however many rounds there were."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

# As server_app.store.uploads.TOTAL has it.
_TOTAL = -1


def upgrade() -> None:
    """Add up what was counted so far."""
    op.execute(
        sa.text(
            "INSERT INTO traffic (run_id, kind, round_num, num_bytes) SELECT run_id, kind, "
            f"{_TOTAL}, CAST(SUM(num_bytes) AS BIGINT) FROM traffic GROUP BY run_id, kind"
        )
    )


def downgrade() -> None:
    """Forget the totals."""
    op.execute(sa.text(f"DELETE FROM traffic WHERE round_num = {_TOTAL}"))
