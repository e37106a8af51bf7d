"""Who was erased and may not enroll again yet.

Conversations end: their state has other names in it than before.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Make the table, and end what is under way."""
    op.create_table(
        "holds",
        sa.Column("mark", sa.LargeBinary(32), nullable=False),
        sa.Column("until", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("mark", name="pk_holds"),
    )
    op.create_index("ix_holds_until", "holds", ["until"])
    op.execute("DELETE FROM flows")
