"""The tables. Nothing here says who a person is: ids are coded by `bot.store.vault`."""

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, String, Table

metadata = MetaData()

preferences = Table(
    "preferences",
    metadata,
    Column("person", LargeBinary(32), primary_key=True, doc="HMAC-SHA256 of the Telegram id"),
    Column("language", String(8), nullable=False),
)

updates = Table(
    "updates",
    metadata,
    Column("place", Integer, primary_key=True, autoincrement=True, doc="order of serving"),
    Column("update_id", BigInteger, nullable=False, unique=True),
)
