"""Languages and update numbers, as the first versions made them without saying so."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables, where they are not there yet."""
    there = sa.inspect(op.get_bind()).get_table_names()
    if "preferences" not in there:
        op.create_table(
            "preferences",
            sa.Column("person", sa.LargeBinary(32), nullable=False),
            sa.Column("language", sa.String(8), nullable=False),
            sa.PrimaryKeyConstraint("person", name="pk_preferences"),
        )
    if "updates" not in there:
        op.create_table(
            "updates",
            sa.Column("place", sa.Integer, autoincrement=True, nullable=False),
            sa.Column("update_id", sa.BigInteger, nullable=False),
            sa.PrimaryKeyConstraint("place", name="pk_updates"),
            sa.UniqueConstraint("update_id", name="uq_updates_update_id"),
        )
