"""The face login: people and what hangs on them, the audit trail, keys' marks, tombstones."""

import hashlib

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_CODE = sa.LargeBinary(32)


def upgrade() -> None:
    """Make the tables and the triggers, and mark the languages that were chosen."""
    _mark_preferences()
    _name_constraints()
    _people()
    _login()
    _captures()
    _audit()
    op.create_table(
        "key_marks",
        sa.Column("key_id", sa.String(32), nullable=False),
        sa.Column("mark", _CODE, nullable=False),
        sa.PrimaryKeyConstraint("key_id", name="pk_key_marks"),
    )
    op.create_table(
        "tombstones",
        sa.Column("mark", _CODE, nullable=False),
        sa.PrimaryKeyConstraint("mark", name="pk_tombstones"),
    )


def _mark_preferences() -> None:
    """Rows of before have marks that follow from the person: the same in every older backup."""
    with op.batch_alter_table("preferences") as batch:
        batch.add_column(sa.Column("mark", _CODE, nullable=True))
    preferences = sa.table("preferences", sa.column("person", _CODE), sa.column("mark", _CODE))
    connection = op.get_bind()
    for person in connection.execute(sa.select(preferences.c.person)).scalars().all():
        mark = hashlib.sha256(b"face-matcher language" + person).digest()
        connection.execute(
            preferences.update().where(preferences.c.person == person).values(mark=mark)
        )
    with op.batch_alter_table("preferences") as batch:
        batch.alter_column("mark", existing_type=_CODE, nullable=False)


def _name_constraints() -> None:
    """What `create_all` left without a name gets the one that it has in new databases."""
    if op.get_bind().dialect.name == "sqlite":
        names = {"uq": "uq_%(table_name)s_%(column_0_name)s", "pk": "pk_%(table_name)s"}
        with op.batch_alter_table("updates", recreate="always", naming_convention=names):
            pass


def _people() -> None:
    op.create_table(
        "people",
        sa.Column("person", _CODE, nullable=False),
        sa.Column("mark", _CODE, nullable=False),
        sa.Column("key_id", sa.String(32), nullable=False),
        sa.Column("wrapped_key", sa.LargeBinary, nullable=False),
        sa.Column("secret", sa.LargeBinary, nullable=False),
        sa.Column("address", sa.LargeBinary, nullable=False),
        sa.Column("recovery", sa.LargeBinary),
        sa.Column("enrolments", sa.Integer, nullable=False),
        sa.Column("locked", sa.BigInteger),
        sa.Column("locked_by", _BIG),
        sa.Column("cleared_through", _BIG, nullable=False),
        sa.Column("reset_due", sa.BigInteger),
        sa.PrimaryKeyConstraint("person", name="pk_people"),
    )
    op.create_index("ix_people_key_id", "people", ["key_id"])
    op.create_table(
        "enrolments",
        _person(),
        sa.Column("embedder", sa.String(255), nullable=False),
        sa.Column("templates", sa.Integer, nullable=False),
        sa.Column("seed", sa.LargeBinary, nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.Column("last_used", sa.BigInteger),
        sa.Column("noticed", sa.BigInteger),
        sa.PrimaryKeyConstraint("person", name="pk_enrolments"),
        _of_person("enrolments"),
    )
    op.create_table(
        "templates",
        _person(),
        sa.Column("slot", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("is_mean", sa.Boolean, nullable=False),
        sa.Column("vector", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("person", "slot", name="pk_templates"),
        _of_person("templates"),
    )
    op.create_table(
        "consents",
        sa.Column("id", _BIG, autoincrement=True, nullable=False),
        _person(),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("language", sa.String(8), nullable=False),
        sa.Column("given", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_consents"),
        _of_person("consents"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_consents_person", "consents", ["person"])


def _login() -> None:
    op.create_table(
        "flows",
        sa.Column("id", sa.BigInteger, autoincrement=False, nullable=False),
        _person(),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("state", sa.LargeBinary, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("deadline", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_flows"),
        _of_person("flows"),
        sa.UniqueConstraint("person", name="uq_flows_person"),
    )
    op.create_index("ix_flows_deadline", "flows", ["deadline"])
    op.create_table(
        "challenges",
        sa.Column("nonce_hash", _CODE, nullable=False),
        _person(),
        sa.Column("level", sa.String(16), nullable=False),
        sa.Column("steps", sa.Text, nullable=False),
        sa.Column("drawn", sa.BigInteger, nullable=False),
        sa.Column("deadline", sa.BigInteger, nullable=False),
        sa.Column("spent", sa.BigInteger),
        sa.PrimaryKeyConstraint("nonce_hash", name="pk_challenges"),
        _of_person("challenges"),
    )
    op.create_index("ix_challenges_person", "challenges", ["person"])
    op.create_index("ix_challenges_drawn", "challenges", ["drawn"])
    op.create_table(
        "attempts",
        sa.Column("id", _BIG, autoincrement=True, nullable=False),
        _person(),
        sa.Column("level", sa.String(16), nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("enrolment", sa.Integer, nullable=False),
        sa.Column("begun", sa.BigInteger, nullable=False),
        sa.Column("ended", sa.BigInteger),
        sa.Column("reason", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_attempts"),
        _of_person("attempts"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_attempts_person_id", "attempts", ["person", "id"])
    op.create_index("ix_attempts_begun", "attempts", ["begun"])


def _captures() -> None:
    op.create_table(
        "captures",
        sa.Column("id", sa.BigInteger, autoincrement=False, nullable=False),
        _person(),
        sa.Column("file_mark", _CODE, nullable=False),
        sa.Column("content_mark", _CODE, nullable=False),
        sa.Column("seen", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_captures"),
        _of_person("captures"),
        sa.UniqueConstraint("file_mark", name="uq_captures_file_mark"),
        sa.UniqueConstraint("content_mark", name="uq_captures_content_mark"),
    )
    op.create_index("ix_captures_person", "captures", ["person"])
    op.create_index("ix_captures_seen", "captures", ["seen"])
    op.create_table(
        "fingerprints",
        sa.Column("capture", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("place", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("masked", _CODE, nullable=False),
        sa.PrimaryKeyConstraint("capture", "place", name="pk_fingerprints"),
        sa.ForeignKeyConstraint(
            ["capture"], ["captures.id"], name="fk_fingerprints_capture", ondelete="CASCADE"
        ),
    )


def _audit() -> None:
    op.create_table(
        "audit",
        sa.Column("number", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("subject", sa.LargeBinary(16)),
        sa.Column("event", sa.String(32), nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("link", _CODE, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_audit"),
    )
    op.create_index("ix_audit_at", "audit", ["at"])
    op.create_index("ix_audit_subject", "audit", ["subject"])
    ends = op.create_table(
        "audit_ends",
        sa.Column("id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("anchor", sa.BigInteger, nullable=False),
        sa.Column("anchor_link", _CODE, nullable=False),
        sa.Column("last", sa.BigInteger, nullable=False),
        sa.Column("last_link", _CODE, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_ends"),
    )
    nothing = bytes(32)
    op.bulk_insert(
        ends, [{"id": 1, "anchor": 0, "anchor_link": nothing, "last": 0, "last_link": nothing}]
    )
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    for statement in _SQLITE_TRIGGERS if is_sqlite else _POSTGRESQL_TRIGGERS:
        op.execute(statement)


# Only what was pruned, up to the anchor, may go.
_SQLITE_TRIGGERS = (
    """
    CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
    BEGIN SELECT RAISE(ABORT, 'the audit trail is only added to'); END
    """,
    """
    CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit
    WHEN OLD.number > (SELECT anchor FROM audit_ends)
    BEGIN SELECT RAISE(ABORT, 'the audit trail is only added to'); END
    """,
)
_POSTGRESQL_TRIGGERS = (
    """
    CREATE FUNCTION audit_is_only_added_to() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'DELETE' THEN
            IF OLD.number <= (SELECT anchor FROM audit_ends) THEN RETURN OLD; END IF;
        END IF;
        RAISE EXCEPTION 'the audit trail is only added to';
    END $$
    """,
    """
    CREATE TRIGGER audit_is_not_changed BEFORE UPDATE OR DELETE ON audit
    FOR EACH ROW EXECUTE FUNCTION audit_is_only_added_to()
    """,
    """
    CREATE TRIGGER audit_is_not_emptied BEFORE TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION audit_is_only_added_to()
    """,
)


def _person() -> "sa.Column[bytes]":
    return sa.Column("person", _CODE, nullable=False)


def _of_person(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["person"], ["people.person"], name=f"fk_{table}_person", ondelete="CASCADE"
    )
