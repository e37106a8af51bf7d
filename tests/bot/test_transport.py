"""Retries of calls, and a poller that neither gives up nor goes deaf."""

import asyncio
from typing import Any

import pytest
from telegram.error import BadRequest, InvalidToken, NetworkError, RetryAfter, TimedOut

from bot.polling import Poller
from bot.transport import Patient, Telegram, parse_update


class Call:
    """A Bot API call that fails in given ways first."""

    def __init__(self, *faults: Exception) -> None:
        self.faults = list(faults)
        self.made = 0

    async def __call__(self, *_args: Any, **_kwargs: Any) -> bool:
        self.made += 1
        if self.faults:
            raise self.faults.pop(0)
        return True


async def make(call: Call, *, endpoint: str = "sendPhoto") -> list[float]:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    patient = Patient(retries=3, rate=1000, sleep=sleep)
    assert await patient.process_request(call, (), {}, endpoint, {"chat_id": 1}, None)
    return pauses


async def test_what_the_network_lost_is_sent_again_with_growing_pauses() -> None:
    call = Call(NetworkError("reset"), TimedOut(), NetworkError("502"))
    assert await make(call) == [0.5, 1.0, 2.0]
    assert call.made == 4


async def test_it_gives_up_in_the_end() -> None:
    call = Call(*(NetworkError("x") for _ in range(9)))
    with pytest.raises(NetworkError):
        await make(call)
    assert call.made == 4


@pytest.mark.parametrize(
    ("error", "endpoint"),
    [(BadRequest("no"), "sendPhoto"), (NetworkError("x"), "sendChatAction")],
)
async def test_what_cannot_help_is_not_repeated(error: Exception, endpoint: str) -> None:
    call = Call(error)
    with pytest.raises(type(error)):
        await make(call, endpoint=endpoint)
    assert call.made == 1


class Source:
    """Answers to getUpdates, then silence."""

    def __init__(self, *answers: list[object] | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[int | None, bool]] = []
        self.end = asyncio.Event()

    async def fetch(self, offset: int | None, wait: bool) -> list[object]:
        self.asked.append((offset, wait))
        if not self.answers:
            self.end.set()
            await asyncio.Event().wait()
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def poller(source: Source, taken: list[int]) -> Poller:
    telegram = Telegram("1:a")
    return Poller(
        source.fetch,
        lambda raw: parse_update(raw, telegram),
        lambda update: taken.append(update.update_id),
        pause_s=0.001,
    )


async def test_the_poller_goes_on_after_errors_where_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PTB_TIMEDELTA", "1")  # as bot.app does
    source = Source(
        [{"update_id": 4}, {"update_id": 3}],
        TimedOut(),
        NetworkError("x"),
        RetryAfter(0),
        [],
        [{"no": "number"}],
        [{"update_id": 5}],
    )
    taken: list[int] = []
    polling = poller(source, taken)
    task = asyncio.create_task(polling.run())
    async with asyncio.timeout(10):
        await source.end.wait()
    task.cancel()
    assert taken == [4, 3, 5]
    assert [offset for offset, _ in source.asked] == [None, 5, 5, 5, 5, 5, 5, 6]
    source.answers.append([])
    await polling.acknowledge()
    assert source.asked[-1] == (6, False)


async def test_a_revoked_token_ends_the_poller_with_a_fault() -> None:
    taken: list[int] = []
    with pytest.raises(InvalidToken):
        await poller(Source([{"update_id": 1}], InvalidToken()), taken).run()
    assert taken == [1]
