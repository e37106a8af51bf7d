"""Which replica tells a person something, so that the others do not."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the column that says until when one replica alone may tell a person."""
    op.add_column("enrolments", sa.Column("claimed", sa.BigInteger, nullable=True))
