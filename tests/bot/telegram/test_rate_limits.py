"""Telegram's rates and 429s: which call waits, for how long, and which does not."""

import asyncio
import heapq
import itertools
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from telegram import Update
from telegram.error import BadRequest, NetworkError, RetryAfter, TelegramError, TimedOut

from bot import app
from bot.sandbox import Fault, FaultKind, Sandbox
from bot.telegram.rate_limits import Limiter
from bot.telegram.request import Request, current
from bot.texts import say
from tests.bot import fakes
from tests.bot.fakes import picture

ANA, BEN, GROUP = 1, 2, -100


@pytest.fixture(autouse=True)
def _durations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTB_TIMEDELTA", "1")  # as bot.app does


class Clock:
    """Time that passes only where everybody waits for it."""

    def __init__(self) -> None:
        self.now = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Event]] = []
        self._numbers = itertools.count()

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        awake = asyncio.Event()
        heapq.heappush(self._sleepers, (self.now + seconds, next(self._numbers), awake))
        await awake.wait()

    async def run(self, *work: Awaitable[Any]) -> list[Any]:
        """The results of all, faults included."""
        together = asyncio.gather(*work, return_exceptions=True)
        while not together.done():
            for _ in range(10 * len(work) + 10):
                await asyncio.sleep(0)
            if not together.done():
                self.now, _, awake = heapq.heappop(self._sleepers)
                awake.set()
        return await together


class Scene:
    """A limiter, and Telegram, which answers calls with what a test put in and notes them."""

    def __init__(self, rate: float = 30.0, patience_s: float = 30.0) -> None:
        self.clock = Clock()
        self.limiter = Limiter(
            rate=rate, patience_s=patience_s, clock=self.clock, sleep=self.clock.sleep
        )
        self.made: list[tuple[float, str, int | None]] = []

    async def call(
        self, endpoint: str, chat: int | None = None, faults: Iterable[Exception] = ()
    ) -> Any:
        left = iter(faults)

        async def telegram() -> bool:
            self.made.append((round(self.clock.now, 3), endpoint, chat))
            for fault in left:
                raise fault
            return True

        data = {} if chat is None else {"chat_id": chat}
        return await self.limiter.process_request(telegram, (), {}, endpoint, data, None)

    async def serving(self, seconds: float, endpoint: str, chat: int, *faults: Exception) -> Any:
        """A call that serves a request with so much time."""
        served = Request(Update(1), chat, "photo", deadline_s=self.clock.now + seconds)
        current.set(served)  # of this task alone
        return await self.call(endpoint, chat, faults)


def others(scene: Scene) -> list[Awaitable[Any]]:
    return [
        scene.call("sendMessage", BEN),
        scene.call("editMessageMedia", ANA),
        scene.call("getFile"),
        scene.call("answerCallbackQuery"),
        scene.call("sendChatAction", ANA),
    ]


async def test_a_429_halts_its_chats_messages_and_nothing_else() -> None:
    scene = Scene()

    async def later() -> None:
        await scene.clock.sleep(1)
        await asyncio.gather(*others(scene), scene.call("sendPhoto", ANA))

    await scene.clock.run(scene.call("sendMessage", ANA, [RetryAfter(15)]), later())
    halted = [
        (when, chat) for when, name, chat in scene.made if name in ("sendMessage", "sendPhoto")
    ]
    assert halted == [(0, ANA), (1, BEN), (15, ANA), (15, ANA)]
    assert all(when == 1 for when, name, _ in scene.made if not name.startswith("send"))


@pytest.mark.parametrize("endpoint", ["getFile", "setMyCommands", "answerCallbackQuery"])
async def test_a_429_without_a_chat_halts_its_method_alone(endpoint: str) -> None:
    scene = Scene()

    async def later() -> None:
        await scene.clock.sleep(1)
        await asyncio.gather(scene.call("sendMessage", ANA), scene.call(endpoint))

    await scene.clock.run(scene.call(endpoint, None, [RetryAfter(15)]), later())
    assert [when for when, name, _ in scene.made if name == endpoint] == [0, 15, 15]
    assert (1, "sendMessage", ANA) in scene.made


async def test_a_halt_lasts_also_where_who_met_it_is_gone() -> None:
    scene = Scene()
    first = asyncio.create_task(scene.call("sendMessage", ANA, [RetryAfter(15)]))
    for _ in range(10):  # until it waits
        await asyncio.sleep(0)
    first.cancel()
    await scene.clock.run(scene.call("sendMessage", ANA))
    assert [when for when, _, _ in scene.made] == [0, 15]


async def test_a_card_is_repeated_as_long_as_its_time_lasts() -> None:
    scene = Scene()
    faults = [RetryAfter(1) for _ in range(12)]
    assert await scene.clock.run(scene.serving(20, "sendMediaGroup", ANA, *faults)) == [True]
    assert len(scene.made) == 13


@pytest.mark.parametrize("endpoint", ["sendPhoto", "sendMediaGroup", "editMessageMedia"])
async def test_nothing_waits_past_its_time(endpoint: str) -> None:
    scene = Scene()
    (told,) = await scene.clock.run(scene.serving(10, endpoint, ANA, RetryAfter(11)))
    assert isinstance(told, RetryAfter)
    assert scene.clock.now == 0
    # Nor does whoever comes to a halt that outlasts them; who has the time, waits.
    told = await scene.clock.run(scene.serving(10, endpoint, ANA), scene.serving(12, endpoint, ANA))
    assert [type(each) for each in told] == [RetryAfter, bool]
    assert scene.clock.now == 11


async def test_what_serves_no_request_has_patience() -> None:
    scene = Scene(patience_s=5)
    waits = [RetryAfter(4), RetryAfter(6)]
    told = await scene.clock.run(
        *(scene.call("setMyCommands", None, [wait]) for wait in waits[:1]),
        scene.call("sendMessage", ANA, waits[1:]),
    )
    assert [type(each) for each in told] == [bool, RetryAfter]


async def test_what_the_network_lost_is_sent_again_with_growing_pauses() -> None:
    scene = Scene()
    faults = (NetworkError("reset"), TimedOut(), *(NetworkError("502") for _ in range(3)))
    assert await scene.clock.run(scene.serving(20, "sendPhoto", ANA, *faults)) == [True]
    assert [when for when, _, _ in scene.made] == [0, 0.5, 1.5, 3.5, 7.5, 11.5]


async def test_it_gives_up_when_the_time_is_over() -> None:
    scene = Scene()
    faults = (NetworkError("x") for _ in range(99))
    (told,) = await scene.clock.run(scene.serving(5, "sendPhoto", ANA, *faults))
    assert isinstance(told, NetworkError)
    assert 3 <= scene.clock.now <= 5


@pytest.mark.parametrize(
    ("kind", "value", "endpoint"),
    [
        (BadRequest, "no", "sendPhoto"),
        (NetworkError, "x", "sendChatAction"),
        (RetryAfter, 1, "sendChatAction"),
    ],
)
async def test_what_cannot_help_is_not_repeated(
    kind: Callable[[Any], TelegramError], value: object, endpoint: str
) -> None:
    scene, error = Scene(), kind(value)
    (told,) = await scene.clock.run(scene.serving(20, endpoint, ANA, error))
    assert type(told) is type(error)
    assert len(scene.made) == 1
    assert scene.clock.now == 0


async def test_a_chat_gets_a_burst_and_then_one_message_a_second() -> None:
    scene = Scene()
    await scene.clock.run(*(scene.call("sendMessage", ANA) for _ in range(15)))
    assert [when for when, _, _ in scene.made] == [0.0] * 10 + [1, 2, 3, 4, 5]


async def test_a_group_gets_twenty_messages_a_minute() -> None:
    scene = Scene()
    await scene.clock.run(*(scene.call("sendMessage", GROUP) for _ in range(22)))
    assert [when for when, _, _ in scene.made] == [0.0] * 20 + [3, 6]


async def test_all_chats_together_get_thirty_messages_a_second() -> None:
    scene = Scene()
    await scene.clock.run(*(scene.call("sendMessage", chat) for chat in range(90)))
    times = [when for when, _, _ in scene.made]
    assert times[:30] == [0.0] * 30
    assert times[-1] == pytest.approx(2.0)
    assert [chat for _, _, chat in scene.made] == list(range(90))


async def test_chats_that_are_quiet_are_forgotten() -> None:
    scene = Scene(rate=1000, patience_s=9999)
    for chat in range(1, 3000):
        await scene.clock.run(scene.call("sendMessage", chat, [RetryAfter(1)]))
        scene.clock.now += 1
    assert len(scene.limiter._chats) <= 1000
    assert len(scene.limiter._halts) <= 1000


def throttled(method: str, seconds: int, count: int = 1) -> Fault:
    return Fault(FaultKind.TOO_MANY_REQUESTS, count, method, retry_after_s=seconds)


async def test_one_persons_429_silences_nobody_else(tmp_path: Path) -> None:
    async with fakes.bot(tmp_path, stop_timeout_s=3) as sandbox:
        ana, ben = sandbox.person("ana"), sandbox.person("ben")
        await ben.set_language("en")
        await ben.send_text("hello")
        await ben.reply()
        sandbox.faults.add(wait := throttled("sendMessage", 600))
        await ana.send_text("hello")
        await fakes.until_met(sandbox, wait)
        await ben.send_text("/cancel")
        assert (await ben.reply()).text == say("en", "account.nothing_to_cancel")
        await ben.send_photo(picture())
        assert (await ben.reply()).photo


async def test_a_card_outlives_a_row_of_429s_that_its_time_allows(tmp_path: Path) -> None:
    async with fakes.bot(tmp_path) as sandbox:
        ana = sandbox.person("ana")
        sandbox.faults.add(throttled("sendPhoto", 1, count=5))
        await ana.send_photo(picture())
        assert (await ana.reply()).photo


async def test_what_telegram_takes_too_late_holds_no_slot(tmp_path: Path) -> None:
    finished: asyncio.Queue[Request] = asyncio.Queue()
    async with Sandbox() as sandbox:
        chosen = fakes.settings(sandbox, tmp_path, concurrency=1)
        async with app.running(
            chosen, fakes.FakeEngine(), draw=fakes.draw, finished=finished.put_nowait
        ):
            ana, ben = sandbox.person("ana"), sandbox.person("ben")
            sandbox.faults.add(throttled("sendPhoto", 60))
            await ana.send_photo(picture())
            async with asyncio.timeout(60):
                assert (await finished.get()).outcome == "deadline_unsent"
            await ben.send_photo(picture(1))
            assert (await ben.reply()).photo


class Held:
    """A call that is carried out, and whose answer comes when it is let."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()

    async def __call__(self) -> bool:
        self.begun.set()
        await self.go_on.wait()
        return True

    async def cut_off(self, endpoint: str, *, answered: bool) -> Request:
        """The request that the call served, which was cut off while it was under way."""
        served = Request(Update(1), ANA, "photo", deadline_s=asyncio.get_running_loop().time() + 60)
        current.set(served)
        limiter = Limiter(rate=30, patience_s=30)
        work = limiter.process_request(self, (), {}, endpoint, {"chat_id": ANA}, None)
        task = asyncio.create_task(work)
        await self.begun.wait()
        task.cancel()
        if answered:
            await asyncio.sleep(0)
            self.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        return served


@pytest.mark.parametrize("endpoint", ["sendMessage", "sendPhoto", "answerCallbackQuery"])
async def test_a_call_under_way_when_time_is_over_is_known_to_have_been_carried_out(
    endpoint: str,
) -> None:
    assert (await Held().cut_off(endpoint, answered=True)).told


async def test_a_call_that_tells_nobody_anything_is_cut_off_at_once() -> None:
    assert not (await Held().cut_off("sendChatAction", answered=False)).told


async def test_a_call_whose_answer_does_not_come_is_cut_off_in_the_end() -> None:
    assert not (await Held().cut_off("sendMessage", answered=False)).told
