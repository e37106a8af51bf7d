"""The accounting of a run, tried on bots that err."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from telegram import Bot
from telegram.error import NetworkError

from bot.sandbox import Fault, FaultKind, Person, Sandbox
from bot.sandbox.client import Message
from tests.bot import fakes
from tests.chaos.book import Book, Life, Line

ANA = 7001
ALBUM_S = 1.5


@dataclass
class Scene:
    """A person, a bot that a test plays, and the book."""

    sandbox: Sandbox
    bot: Bot
    ana: Person
    book: Book
    now: float = 0.0

    async def fetch(self) -> list[int]:
        """Take the updates in; their numbers."""
        updates = await self.bot.get_updates()
        numbers = [update.update_id for update in updates]
        if numbers:
            await self.bot.get_updates(offset=numbers[-1] + 1)
        return numbers

    async def answer(self, message: Message, text: str = "hello") -> None:
        await self.bot.send_message(ANA, text, reply_to_message_id=message.message_id)

    def log(self, number: int, outcome: str = "answered") -> None:
        self.book.log(Line(self.now, 1, f"update={number} kind=text outcome={outcome} total_ms=1"))

    def violations(self) -> list[str]:
        return self.book.judge(ALBUM_S).violations


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with Sandbox() as sandbox:
        ana = sandbox.person("ana")
        book = Book(sandbox, lambda: 0.0, lambda: 1)
        book.lives.append(Life(1, 0.0))
        url, files = sandbox.bot_api_url, sandbox.file_url
        async with Bot(sandbox.token, base_url=url, base_file_url=files) as bot:
            yield Scene(sandbox, bot, ana, book)


async def test_each_message_answered_once_is_right(scene: Scene) -> None:
    for text in ("one", "two"):
        message = await scene.ana.send_text(text)
        (number,) = await scene.fetch()
        assert scene.book.waiting()
        await scene.answer(message)
        scene.log(number)
    assert not scene.book.waiting()
    assert scene.violations() == []


async def test_a_message_without_an_answer_is_a_violation_whatever_the_log_says(
    scene: Scene,
) -> None:
    await scene.ana.send_text("one")
    (number,) = await scene.fetch()
    for outcome in ("answered", "one_at_a_time", "deadline_unsent"):
        scene.book.outcomes.clear()
        scene.log(number, outcome)
        (violation,) = scene.violations()
        assert violation.startswith("no answer")


async def test_two_answers_are_a_violation_unless_the_first_one_s_call_was_cut(
    scene: Scene,
) -> None:
    message = await scene.ana.send_text("one")
    scene.sandbox.faults.add(Fault(FaultKind.LOST_ANSWER, 1, "sendMessage"))
    (number,) = await scene.fetch()
    with pytest.raises(NetworkError):
        await scene.answer(message)
    await scene.answer(message)
    scene.log(number)
    assert scene.violations() == []
    assert sum(scene.book.judge(ALBUM_S).twice.values()) == 1
    await scene.answer(message)
    (violation,) = scene.violations()
    assert "too often" in violation


async def test_an_album_is_answered_once(scene: Scene) -> None:
    first, second = await scene.ana.send_album([fakes.picture(1), fakes.picture(2)])
    numbers = await scene.fetch()
    await scene.answer(first)
    for number in numbers:
        scene.log(number)
    assert scene.violations() == []
    await scene.answer(second)
    (violation,) = scene.violations()
    assert "too often" in violation


async def test_an_edited_text_is_met_with_silence(scene: Scene) -> None:
    message = await scene.ana.send_text("one")
    await scene.ana.edit(message, "two")
    numbers = await scene.fetch()
    await scene.answer(message)
    for number in numbers:
        scene.log(number)
    assert scene.violations() == []
    await scene.answer(message)
    (violation,) = scene.violations()
    assert "too often" in violation


async def test_what_a_killed_bot_had_in_hand_is_lost_and_nothing_else_is(scene: Scene) -> None:
    await scene.ana.send_text("in hand")
    await scene.fetch()
    await scene.ana.send_text("after it")
    life = scene.book.lives[0]
    life.ending, life.ended_s = "kill", 0.0
    (violation,) = scene.violations()
    assert violation.startswith("no answer")
    assert scene.book.judge(ALBUM_S).unanswered == {"in hand at a SIGKILL": 1}


async def test_what_nobody_asked_for_is_a_violation(scene: Scene) -> None:
    await scene.ana.send_text("one")
    (number,) = await scene.fetch()
    await scene.bot.send_message(ANA, "an advertisement")
    scene.log(number, "ignored")
    assert any(each.startswith("nobody asked") for each in scene.violations())
