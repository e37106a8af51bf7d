"""Who is served when: lanes by themselves, and one person flooding the running bot."""

import asyncio
import logging
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from telegram import Update
from telegram.error import NetworkError

from bot.telegram.albums import Albums
from bot.telegram.incoming import route
from bot.telegram.request import Request, current
from bot.telegram.update_processor import PerPersonProcessor, ServedUpdates, Turned
from bot.texts import say
from tests.bot import clock
from tests.bot.fakes import FakeEngine, bot, picture


class Memory:
    def __init__(self) -> None:
        self.marked: list[int] = []

    async def mark_served(self, update_id: int) -> None:
        self.marked.append(update_id)


class Scene:
    """Lanes with handlers that a test finishes one by one."""

    def __init__(self, **changes: Any) -> None:
        self.memory = Memory()
        self.turned: list[tuple[int, Turned]] = []
        self.unsent = 0
        self.started: list[int] = []
        self.change = asyncio.Condition()
        self.finish = {number: asyncio.Event() for number in range(200)}
        self.tasks: list[asyncio.Task[None]] = []
        self.requests: dict[int, Request] = {}
        values: dict[str, Any] = {
            "slots": 4,
            "person_queue": 3,
            "waiting_total": 100,
            "answer_timeout_s": 20,
            "now": lambda: datetime(1970, 1, 1, 0, 0, 2, tzinfo=UTC),  # when updates come
            **changes,
        }
        self.lanes = PerPersonProcessor(
            route=route,
            turn_away=self._turn_away,
            seen=values.pop("seen", ServedUpdates((), 1000)),
            memory=self.memory,
            albums=values.pop("albums", Albums(0.05)),
            **values,
        )

    async def _turn_away(self, request: Request, turned: Turned) -> None:
        if self.unsent:
            self.unsent -= 1
            raise NetworkError("cut")
        self.turned.append((request.update.update_id, turned))

    async def _handle(self, number: int) -> None:
        self.requests[number] = current.get()
        async with self.change:
            self.started.append(number)
            self.change.notify_all()
        await self.finish[number].wait()

    def send(self, number: int, person: int, **fields: Any) -> None:
        handlers: Coroutine[Any, Any, None] = self._handle(number)
        work = self.lanes.process_update(update(number, person, **fields), handlers)
        self.tasks.append(asyncio.create_task(work))

    async def until_started(self, count: int) -> list[int]:
        async with asyncio.timeout(60), self.change:
            await self.change.wait_for(lambda: len(self.started) >= count)
        return self.started

    async def end(self) -> None:
        for event in self.finish.values():
            event.set()
        async with asyncio.timeout(60):
            await asyncio.gather(*self.tasks)


def update(number: int, person: int, **fields: Any) -> Update:
    sender = {"id": person, "is_bot": False, "first_name": "x"}
    chat = {"id": person, "type": "private", "first_name": "x"}
    message = {"message_id": number, "date": 1, "chat": chat, "from": sender, "text": "x"}
    return Update.de_json({"update_id": number, "message": {**message, **fields}}, None)


async def settle() -> None:
    """Let everything run that can run without time passing."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_one_person_is_served_in_order_and_one_at_a_time() -> None:
    scene = Scene()
    for number in (1, 2, 3):
        scene.send(number, person=1)
    assert await scene.until_started(1) == [1]
    await settle()
    assert scene.started == [1]
    scene.finish[1].set()
    assert await scene.until_started(2) == [1, 2]
    await scene.end()
    assert scene.started == [1, 2, 3]
    assert scene.memory.marked == [1, 2, 3]


async def test_people_are_served_at_one_time_up_to_the_slots() -> None:
    scene = Scene(slots=2)
    for person in (1, 2, 3):
        scene.send(person, person)
    assert await scene.until_started(2) == [1, 2]
    await settle()
    assert scene.started == [1, 2]
    assert (scene.lanes.running, scene.lanes.waiting) == (2, 1)
    await scene.end()
    assert scene.started == [1, 2, 3]


async def test_with_one_slot_a_flooder_is_overtaken_after_one_request() -> None:
    scene = Scene(slots=1)
    for number in range(50):
        scene.send(number, person=1)
    await scene.until_started(1)
    scene.send(60, person=2)
    await settle()
    scene.finish[0].set()
    assert await scene.until_started(2) == [0, 60]
    await scene.end()


async def test_a_flooder_whom_no_word_reached_is_told_with_the_next_message() -> None:
    scene = Scene()
    scene.unsent = 1
    for number in range(5):
        scene.send(number, person=1)
    await settle()
    assert scene.turned == []
    for number in (5, 6):
        scene.send(number, person=1)
    await settle()
    assert scene.turned == [(5, Turned.FLOOD)]
    await scene.end()


async def test_the_surplus_of_what_came_while_the_bot_was_away_is_told_as_such() -> None:
    scene = Scene(now=lambda: datetime(1970, 1, 1, 3, tzinfo=UTC))
    for number in range(30):
        scene.send(number, person=1)
    await scene.until_started(1)
    await settle()
    assert scene.turned == [(4, Turned.BACKLOG)]
    await scene.end()
    assert scene.started == [0, 1, 2, 3]


async def test_the_surplus_of_a_burst_is_refused_and_told_once() -> None:
    scene = Scene()
    for number in range(50):
        scene.send(number, person=1)
    await scene.until_started(1)
    await settle()
    assert scene.turned == [(4, Turned.FLOOD)]
    assert scene.lanes.waiting == 3
    await scene.end()
    assert scene.started == [0, 1, 2, 3]
    assert sorted(scene.memory.marked) == list(range(50))
    scene.finish[50].clear()
    for number in range(50, 60):
        scene.send(number, person=1)
    await scene.until_started(5)
    await settle()
    assert scene.turned == [(4, Turned.FLOOD), (54, Turned.FLOOD)]
    await scene.end()


async def test_a_full_house_turns_away() -> None:
    scene = Scene(slots=1, waiting_total=2)
    for person in range(1, 6):
        scene.send(person, person)
    await scene.until_started(1)
    await settle()
    assert [turned for _, turned in scene.turned] == [Turned.FULL, Turned.FULL]
    await scene.end()


async def test_a_repeated_update_is_served_once_also_after_a_restart() -> None:
    scene = Scene(seen=ServedUpdates([7], 1000))
    scene.send(7, person=1)
    scene.send(8, person=1)
    scene.send(8, person=1)
    await scene.until_started(1)
    await scene.end()
    assert scene.started == [8]


def test_only_the_newest_numbers_are_kept() -> None:
    seen = ServedUpdates([1, 2, 3], 3)
    assert not seen.add(1)
    assert seen.add(4)
    assert seen.add(1)


async def test_whose_answer_came_through_when_time_was_over_is_told_nothing_else() -> None:
    scene = Scene(answer_timeout_s=60)
    scene.send(1, person=1)
    await scene.until_started(1)
    scene.requests[1].told = True
    await clock.advance(60)
    async with asyncio.timeout(60):
        await asyncio.gather(*scene.tasks)
    assert scene.turned == []
    assert scene.requests[1].outcome == "answered"


async def test_work_stops_at_the_deadline_with_an_answer() -> None:
    scene = Scene(answer_timeout_s=60, slots=1)
    scene.send(1, person=1)
    scene.send(2, person=2)  # gets the slot at its last moment at best
    await scene.until_started(1)
    await settle()
    await clock.advance(60)
    async with asyncio.timeout(60):
        await asyncio.gather(*scene.tasks)
    assert scene.turned == [(1, Turned.LATE), (2, Turned.LATE)]
    assert scene.started[0] == 1


async def test_an_album_is_one_request_with_all_its_messages_in_order() -> None:
    scene = Scene()
    for number in (3, 1, 2, *range(4, 11)):
        scene.send(number, person=1, media_group_id="a")
    await scene.until_started(1)
    scene.send(11, person=1, media_group_id="b")
    assert [one.message_id for one in scene.requests[3].messages] == list(range(1, 11))
    scene.finish[3].set()
    await scene.until_started(2)
    assert [one.message_id for one in scene.requests[11].messages] == [11]
    await scene.end()
    assert scene.turned == []


async def test_albums_that_still_come_in_count_photo_by_photo() -> None:
    scene = Scene(slots=1, waiting_total=25, albums=Albums(0.5))
    scene.send(0, person=100)
    await scene.until_started(1)
    for place in range(10):
        for person in range(9):
            scene.send(10 * person + place + 1, person=person + 1, media_group_id="a")
        await settle()
        assert scene.lanes.waiting <= 25
    assert [turned for _, turned in scene.turned] == [Turned.FULL] * 7, "each album is told once"
    assert scene.lanes.waiting == 20
    scene.send(150, person=200)
    await settle()
    assert scene.lanes.waiting == 21
    await scene.end()
    assert sorted(scene.started) == [0, 1, 11, 150]
    assert [len(scene.requests[number].messages) for number in (1, 11)] == [10, 10]
    assert (scene.lanes.running, scene.lanes.waiting) == (0, 0)


async def test_an_album_of_two_gives_back_the_places_of_ten_when_it_is_complete() -> None:
    scene = Scene(slots=1, waiting_total=12)
    scene.send(0, person=100)
    await scene.until_started(1)
    for number in (1, 2):
        scene.send(number, person=1, media_group_id="a")
    async with asyncio.timeout(60):
        while scene.lanes.waiting != 2:  # noqa: ASYNC110 (the album's end wakes nobody)
            await asyncio.sleep(0.01)
    for number in (3, 4, 5):
        scene.send(number, person=2, media_group_id="b")
    await settle()
    assert scene.turned == []
    await scene.end()
    assert scene.started == [0, 1, 3]


async def test_one_person_s_albums_are_refused_as_other_requests_while_they_come_in() -> None:
    scene = Scene()
    for number in range(20):
        scene.send(number, person=1, media_group_id=f"album {number}")
    await settle()
    assert scene.turned == [(4, Turned.FLOOD)]
    await scene.end()
    assert scene.started == [0, 1, 2, 3]


async def test_an_album_is_served_where_fewer_may_wait_than_it_has_photos() -> None:
    scene = Scene(waiting_total=1)
    for number in range(10):
        scene.send(number, person=1, media_group_id="a")
    await scene.until_started(1)
    await scene.end()
    assert scene.turned == []


async def test_albums_of_two_people_with_one_name_stay_apart() -> None:
    scene = Scene()
    scene.send(1, person=1, media_group_id="a")
    scene.send(2, person=2, media_group_id="a")
    await scene.until_started(2)
    assert [len(scene.requests[number].messages) for number in (1, 2)] == [1, 1]
    await scene.end()


async def test_stopping_lets_the_running_end_and_tells_the_waiting_to_send_again() -> None:
    scene = Scene(slots=1)
    scene.send(1, person=1)
    scene.send(2, person=1)
    scene.send(3, person=2)
    scene.send(4, person=3, media_group_id="still coming in")
    await scene.until_started(1)
    draining = asyncio.create_task(scene.lanes.drain(5))
    await settle()
    scene.send(5, person=4)
    await settle()
    assert sorted(scene.turned) == [(number, Turned.STOPPING) for number in (2, 3, 4, 5)]
    assert not draining.done()
    scene.finish[1].set()
    async with asyncio.timeout(60):
        await draining
    assert scene.started == [1]
    assert scene.requests[1].outcome == "answered"


async def test_stopping_ends_also_what_does_not_end_by_itself() -> None:
    scene = Scene()
    scene.send(1, person=1)
    await scene.until_started(1)
    async with asyncio.timeout(60):
        await scene.lanes.drain(0.4)
    assert scene.turned == [(1, Turned.STOPPING)]


@pytest.mark.parametrize(
    "changes",
    [
        {"chat": {"id": -5, "type": "group", "title": "x"}},
        {"chat": {"id": -5, "type": "channel", "title": "x"}},
        {"from": {"id": 1, "is_bot": True, "first_name": "x"}},
        {"from": None},
        {"from": {"id": "1", "is_bot": False, "first_name": "x"}},
        {"pinned_message": {"message_id": 1, "date": 0, "chat": {"id": 1, "type": "private"}}},
    ],
)
async def test_groups_channels_bots_and_notices_are_left_alone(changes: dict[str, Any]) -> None:
    scene = Scene()
    scene.send(1, person=1, **changes)
    await scene.end()
    assert scene.started == []
    assert scene.turned == []


async def test_an_edited_message_is_left_alone() -> None:
    scene = Scene()
    raw = update(1, 1).to_dict()
    raw["edited_message"] = raw.pop("message")
    handlers = scene._handle(1)
    await scene.lanes.process_update(Update.de_json(raw, None), handlers)
    assert scene.started == []


async def test_who_got_no_answer_in_time_is_told_so_with_time_of_its_own() -> None:
    scene = Scene()

    async def handlers() -> None:
        request = current.get()
        scene.requests[1] = request
        request.deadline_s, request.late = asyncio.get_running_loop().time(), True

    await scene.lanes.process_update(update(1, 1), handlers())
    assert scene.turned == [(1, Turned.LATE)]
    assert scene.requests[1].deadline_s > asyncio.get_running_loop().time() + 19


async def test_a_failing_memory_costs_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(_number: int) -> None:
        raise OSError("disk full")

    scene = Scene()
    scene.memory.mark_served = fail  # type: ignore[assignment]
    scene.send(1, person=1)
    await scene.until_started(1)
    await scene.end()
    assert "update=1 could not be remembered" in caplog.text


async def test_each_update_has_one_line_without_people_in_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    scene = Scene()
    scene.send(1, person=987654321)
    await scene.until_started(1)
    await scene.end()
    (line,) = (record.getMessage() for record in caplog.records if record.name == "bot")
    assert line.startswith("update=1 kind=text outcome=answered total_ms=")
    assert "queue_ms=" in line
    assert "987654321" not in caplog.text


async def test_one_person_sends_fifty_photos_and_another_waits_for_two_at_most(
    tmp_path: Path,
) -> None:
    engine = FakeEngine()
    engine.gate = asyncio.Semaphore(0)
    async with bot(tmp_path, engine) as sandbox:
        ana, ben = sandbox.person("ana"), sandbox.person("ben")
        await ana.set_language("en")
        for _ in range(50):
            await ana.send_photo(picture())
        assert (await ana.reply()).text == say("en", "turned.one_at_a_time")
        await ben.send_photo(picture(1))
        await engine.until_asked(2)
        engine.gate.release()  # the flooder's first
        engine.gate.release()  # the other person's
        assert (await ben.reply()).photo
        assert engine.served == 2
        for _ in range(3):
            engine.gate.release()
        cards = await ana.replies(4)
        assert all(card.photo for card in cards)
        assert engine.served == 5
