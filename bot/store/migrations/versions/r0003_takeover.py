"""When another embedder takes over from the one that people are enrolled with, and who knows."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the table, and the column that says of which date a person was told."""
    op.create_table(
        "takeover",
        sa.Column("id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("embedder", sa.String(255), nullable=False),
        sa.Column("replaces", sa.String(255), nullable=False),
        sa.Column("due", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_takeover"),
    )
    op.add_column("enrolments", sa.Column("announced", sa.BigInteger, nullable=True))
