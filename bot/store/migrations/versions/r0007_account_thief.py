"""What a face login needs against somebody who has the account, or the database, but not the face.

Conversations end: their state has other names in it than before.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Change the tables, and end what is under way."""
    op.execute("DELETE FROM flows")
    # Of whole pictures, not of faces: nothing that comes now can be compared with them.
    op.execute("DELETE FROM fingerprints")
    _count_draws()
    _make_room_for_seals()
    _make_contacts()


def _make_contacts() -> None:
    """The tables of other accounts that are told, and of marks by which a code finds its owner."""
    op.create_table(
        "contacts",
        sa.Column("person", sa.LargeBinary(32), nullable=False),
        sa.Column("id", sa.BigInteger, nullable=False),
        sa.Column("address", sa.LargeBinary, nullable=False),
        sa.Column("mark", sa.LargeBinary(32), nullable=False),
        sa.Column("language", sa.String(8), nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.Column("ends", sa.BigInteger),
        sa.PrimaryKeyConstraint("person", name="pk_contacts"),
        sa.ForeignKeyConstraint(
            ["person"], ["people.person"], name="fk_contacts_person", ondelete="CASCADE"
        ),
        sa.UniqueConstraint("id", name="uq_contacts_id"),
    )
    op.create_index("ix_contacts_mark", "contacts", ["mark"])
    op.create_index("ix_contacts_ends", "contacts", ["ends"])
    op.create_table(
        "invitations",
        sa.Column("mark", sa.LargeBinary(32), nullable=False),
        sa.Column("person", sa.LargeBinary(32), nullable=False),
        sa.Column("made", sa.BigInteger, nullable=False),
        sa.Column("spent", sa.BigInteger),
        sa.Column("opener", sa.LargeBinary(32)),
        sa.PrimaryKeyConstraint("mark", name="pk_invitations"),
        sa.ForeignKeyConstraint(
            ["person"], ["people.person"], name="fk_invitations_person", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_invitations_person", "invitations", ["person"])
    op.create_index("ix_invitations_made", "invitations", ["made"])
    op.create_table(
        "recovery_marks",
        sa.Column("person", sa.LargeBinary(32), nullable=False),
        sa.Column("mark", sa.LargeBinary(32), nullable=False),
        sa.PrimaryKeyConstraint("person", name="pk_recovery_marks"),
        sa.ForeignKeyConstraint(
            ["person"],
            ["people.person"],
            name="fk_recovery_marks_person",
            ondelete="CASCADE",
        ),
    )
    op.create_index("ix_recovery_marks_mark", "recovery_marks", ["mark"])


def _make_room_for_seals() -> None:
    """Their keys are not in the database: the store seals the rows that are there once."""
    op.add_column("people", sa.Column("heads", sa.Text))
    for table in ("people", "audit_ends", "takeover"):
        op.add_column(table, sa.Column("seal", sa.LargeBinary(32)))
    op.add_column("key_marks", sa.Column("closed", sa.BigInteger))


def _count_draws() -> None:
    """What is counted since a person's last pass, and of what they are to be told."""
    for name in ("failed_photo", "failed_video", "voided"):
        column = sa.Column(name, sa.Integer, nullable=False, server_default="0")
        op.add_column("people", column)
    op.add_column("people", sa.Column("drawn", sa.BigInteger))
    op.add_column("people", sa.Column("alarm", sa.String(16)))
    excused = sa.Column("excused", sa.Boolean, nullable=False, server_default=sa.false())
    op.add_column("challenges", excused)
