"""The store as the settings say: how logs name it."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from bot import storing
from bot.settings import StoreChoice


@pytest.mark.parametrize(
    ("url", "named"),
    [
        (None, "/srv/faces.db"),
        (
            "postgresql://ana:p%40ss@db.example:5432/faces?password=x",
            "postgresql://db.example:5432/faces",
        ),
        ("postgres:///faces?host=/run/pg", "postgres:///faces"),
    ],
)
def test_a_database_is_named_without_secrets(url: str | None, named: str) -> None:
    settings = StoreChoice(
        database=Path("/srv/faces.db"), database_url=None if url is None else SecretStr(url)
    )
    assert storing.named(settings) == named
