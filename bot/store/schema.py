"""The tables. Nothing here says who a person is: `bot.store.vault` codes ids and seals values.

What is marked as sealed is under the person's data key. All of a person's rows hang on their row in
`people` and go with it.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Instant(TypeDecorator[datetime]):
    """A moment, kept as microseconds since 1970 in UTC: the same in every database, and exact."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> int | None:
        """As it is stored."""
        return None if value is None else (value - _EPOCH) // timedelta(microseconds=1)

    def process_result_value(self, value: Any | None, _dialect: Dialect) -> datetime | None:
        """As it is read."""
        return None if value is None else _EPOCH + timedelta(microseconds=value)


# SQLite numbers rows by itself only where the type is called INTEGER.
_BIG = BigInteger().with_variant(Integer, "sqlite")


def _person(**options: Any) -> Column[bytes]:
    return Column(
        "person",
        LargeBinary(32),
        ForeignKey("people.person", ondelete="CASCADE"),
        nullable=False,
        **options,
    )


preferences = Table(
    "preferences",
    metadata,
    Column("person", LargeBinary(32), primary_key=True, doc="HMAC-SHA256 of the Telegram id"),
    Column("language", String(8), nullable=False),
    Column("mark", LargeBinary(32), nullable=False, doc="what a tombstone says; see tombstones"),
)

updates = Table(
    "updates",
    metadata,
    Column("place", Integer, primary_key=True, autoincrement=True, doc="order of serving"),
    Column("update_id", BigInteger, nullable=False, unique=True),
)

people = Table(
    "people",
    metadata,
    Column("person", LargeBinary(32), primary_key=True, doc="HMAC-SHA256 of the Telegram id"),
    Column("mark", LargeBinary(32), nullable=False, doc="what a tombstone says; see tombstones"),
    Column("key_id", String(32), nullable=False, index=True, doc="which template key wraps"),
    Column("wrapped_key", LargeBinary, nullable=False, doc="the person's data key, wrapped"),
    Column("secret", LargeBinary, nullable=False, doc="sealed: 32 bytes, the same across keys"),
    Column("address", LargeBinary, nullable=False, doc="sealed: the Telegram id, for notices"),
    Column("recovery", LargeBinary, doc="sealed: salt and scrypt hash of the recovery code"),
    Column("enrolments", Integer, nullable=False, doc="how often they enrolled"),
    Column("locked", Instant, doc="since when"),
    Column("locked_by", _BIG, doc="the attempt that locked, while it is open"),
    Column("cleared_through", _BIG, nullable=False, doc="failures up to this attempt are forgiven"),
    Column("reset_due", Instant, doc="from when they may enroll anew without being verified"),
    Column("failed_photo", Integer, nullable=False, doc="failures by photo since the last pass"),
    Column("failed_video", Integer, nullable=False, doc="failures by video since a pass by video"),
    Column("voided", Integer, nullable=False, doc="draws since then that a fault of ours lost"),
    Column("drawn", Instant, doc="the newest draw that was not passed since then"),
    Column("alarm", String(16), doc="of what the person is to be told; see attempts"),
    Column("heads", Text, doc="JSON: a hash of the person's rows for each table; see seals"),
    Column("seal", LargeBinary(32), doc="HMAC of this row; none: of before there were seals"),
)

enrolments = Table(
    "enrolments",
    metadata,
    _person(primary_key=True),
    Column("embedder", String(255), nullable=False),
    Column("templates", Integer, nullable=False, doc="how many; not counted: a mean of theirs"),
    Column("seed", LargeBinary, nullable=False, doc="sealed: of the templates' rotation"),
    Column("since", Instant, nullable=False),
    Column("last_used", Instant, doc="of the last passed verification"),
    Column("noticed", Instant, doc="when the person was told that the templates will go"),
    Column("announced", Instant, doc="of which takeover's date the person was told"),
    Column("claimed", Instant, doc="until when whoever has taken an alarm on may tell the person"),
)

takeover = Table(
    "takeover",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False, doc="1: there is one row at most"),
    Column("embedder", String(255), nullable=False, doc="which one takes over"),
    Column("replaces", String(255), nullable=False, doc="from which"),
    Column("due", Instant, nullable=False, doc="from when on"),
    Column("seal", LargeBinary(32), doc="HMAC of this row"),
)

templates = Table(
    "templates",
    metadata,
    _person(primary_key=True),
    Column("slot", Integer, primary_key=True, autoincrement=False),
    Column("is_mean", Boolean, nullable=False, doc="of the others; only of versions before 0.2"),
    Column("vector", LargeBinary, nullable=False, doc="sealed: rotated, d little-endian float64"),
)

consents = Table(
    "consents",
    metadata,
    Column("id", _BIG, primary_key=True, autoincrement=True),
    _person(index=True),
    Column("version", String(64), nullable=False, doc="of the text"),
    Column("language", String(8), nullable=False),
    Column("given", Instant, nullable=False),
    sqlite_autoincrement=True,
)

flows = Table(
    "flows",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False, doc="random"),
    _person(unique=True),
    Column("kind", String(16), nullable=False),
    Column("state", LargeBinary, nullable=False, doc="sealed: JSON"),
    Column("revision", Integer, nullable=False),
    Column("deadline", Instant, nullable=False, index=True),
)

challenges = Table(
    "challenges",
    metadata,
    Column("nonce_hash", LargeBinary(32), primary_key=True, doc="SHA-256"),
    _person(index=True),
    Column("level", String(16), nullable=False),
    Column("steps", Text, nullable=False),
    Column("drawn", Instant, nullable=False, index=True),
    Column("deadline", Instant, nullable=False),
    Column("spent", Instant),
    Column("excused", Boolean, nullable=False, doc="a fault of ours kept an answer from judgement"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("id", _BIG, primary_key=True, autoincrement=True),
    _person(),
    Column("level", String(16), nullable=False, doc="photo, video or recovery"),
    Column("outcome", String(16), nullable=False, doc="open, passed, failed or void"),
    Column("enrolment", Integer, nullable=False, doc="people.enrolments when it began"),
    Column("begun", Instant, nullable=False, index=True),
    Column("ended", Instant),
    Column("reason", Text),
    Index(None, "person", "id"),
    # Numbers are never given twice, or a new attempt could be under one that was forgiven.
    sqlite_autoincrement=True,
)

captures = Table(
    "captures",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False, doc="random"),
    _person(index=True),
    Column("file_mark", LargeBinary(32), nullable=False, unique=True, doc="HMAC of file_unique_id"),
    Column("content_mark", LargeBinary(32), nullable=False, unique=True, doc="HMAC of the bytes"),
    Column("seen", Instant, nullable=False, index=True),
)

fingerprints = Table(
    "fingerprints",
    metadata,
    Column(
        "capture",
        BigInteger,
        ForeignKey("captures.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("place", Integer, primary_key=True, autoincrement=False, doc="order in time"),
    Column("masked", LargeBinary(32), nullable=False, doc="XORed with the person's pad"),
)

audit = Table(
    "audit",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False, doc="without gaps"),
    Column("at", Instant, nullable=False, index=True),
    Column("subject", LargeBinary(16), index=True, doc="from the person's secret; none: nobody's"),
    Column("event", String(32), nullable=False),
    Column("detail", Text, nullable=False, doc="JSON, keys sorted"),
    Column("link", LargeBinary(32), nullable=False, doc="HMAC of the link before and of this row"),
)

audit_ends = Table(
    "audit_ends",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False, doc="1: there is one row"),
    Column("anchor", BigInteger, nullable=False, doc="the newest entry that was pruned"),
    Column("anchor_link", LargeBinary(32), nullable=False),
    Column("last", BigInteger, nullable=False, doc="the newest entry"),
    Column("last_link", LargeBinary(32), nullable=False),
    Column("seal", LargeBinary(32), doc="HMAC of this row"),
)

key_marks = Table(
    "key_marks",
    metadata,
    Column(
        "key_id",
        String(32),
        primary_key=True,
        doc="empty: the key of the ids; ' bot': whose database it is",
    ),
    Column("mark", LargeBinary(32), nullable=False, doc="by which the key is known again"),
    Column("closed", Instant, doc="since when nothing new is protected by it"),
)

tombstones = Table(
    "tombstones",
    metadata,
    Column("mark", LargeBinary(32), primary_key=True, doc="of a row that must not come back"),
)

contacts = Table(
    "contacts",
    metadata,
    _person(primary_key=True),
    Column("id", BigInteger, nullable=False, unique=True, doc="random; buttons name it"),
    Column("address", LargeBinary, nullable=False, doc="sealed: the other account's Telegram id"),
    Column("mark", LargeBinary(32), nullable=False, index=True, doc="HMAC of the same"),
    Column("language", String(8), nullable=False, doc="in which it was confirmed"),
    Column("since", Instant, nullable=False, doc="when it was confirmed there"),
    Column("ends", Instant, index=True, doc="from when on it is told nothing any more"),
)

invitations = Table(
    "invitations",
    metadata,
    Column("mark", LargeBinary(32), primary_key=True, doc="HMAC of the link's code"),
    _person(index=True),
    Column("made", Instant, nullable=False, index=True),
    Column("spent", Instant, doc="when it was opened, or another one took its place"),
    Column("opener", LargeBinary(32), doc="HMAC of the id of who opened it and may confirm"),
)

recovery_marks = Table(
    "recovery_marks",
    metadata,
    _person(primary_key=True),
    Column("mark", LargeBinary(32), nullable=False, index=True, doc="HMAC of the code"),
)

holds = Table(
    "holds",
    metadata,
    Column("mark", LargeBinary(32), primary_key=True, doc="HMAC of the id of who was erased"),
    Column("until", Instant, nullable=False, index=True, doc="before then they may not enroll"),
)

lease = Table(
    "lease",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False, doc="1: there is one row at most"),
    Column("holder", LargeBinary(16), nullable=False, doc="random, of the bot that serves"),
    Column("place", String(255), nullable=False, doc="where it runs, for people"),
    Column("expires", DateTime(timezone=True), nullable=False, doc="by the server's clock"),
)
