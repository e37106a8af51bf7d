"""The messages of an album, gathered until nothing more comes."""

import asyncio
import time
from datetime import UTC, datetime

from telegram import Chat, Message

from bot.telegram.albums import Albums

ALBUM = (7, "13")


def message(number: int) -> Message:
    return Message(number, datetime(2026, 1, 1, tzinfo=UTC), Chat(7, Chat.PRIVATE))


async def test_an_album_stays_one_where_the_process_stood_still_for_longer_than_the_silence() -> (
    None
):
    albums = Albums(0.05)
    assert albums.join(ALBUM, message(1))
    gathered = asyncio.create_task(albums.complete(ALBUM))
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(time.sleep, 0.2)  # the machine has no time for it
    await asyncio.sleep(0)
    for _ in range(10):  # what came meanwhile is read now, which takes some steps
        await asyncio.sleep(0)
    assert not albums.join(ALBUM, message(2))
    assert [one.message_id for one in await gathered] == [1, 2]


async def test_messages_that_came_in_another_order_are_put_in_theirs() -> None:
    albums = Albums(0.05)
    assert albums.join(ALBUM, message(3))
    assert [albums.join(ALBUM, message(number)) for number in (1, 2)] == [False, False]
    assert [one.message_id for one in await albums.complete(ALBUM)] == [1, 2, 3]
