"""A poller that neither gives up nor goes deaf."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from telegram.error import Conflict, InvalidToken, NetworkError, RetryAfter, TimedOut

from bot.sandbox import Fault, FaultKind
from bot.telegram.client import Telegram, parse_update
from bot.telegram.polling import Poller
from tests.bot import fakes


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


async def nothing() -> None:
    """Removes no webhook, because there is none."""


class Pauses(list[float]):
    """Waits that are noted and take no time."""

    async def __call__(self, seconds: float) -> None:
        self.append(seconds)
        await asyncio.sleep(0)


def poller(
    source: Source,
    taken: list[int],
    *,
    refused: Iterable[bool] = (),
    pauses: Pauses | None = None,
    remove_webhook: Callable[[], Awaitable[object]] = nothing,
) -> Poller:
    telegram, verdicts = Telegram("1:a"), iter(refused)

    async def is_refused() -> bool:
        return next(verdicts)

    return Poller(
        source.fetch,
        lambda raw: parse_update(raw, telegram),
        lambda update: taken.append(update.update_id),
        refused=is_refused,
        remove_webhook=remove_webhook,
        sleep=Pauses() if pauses is None else pauses,
    )


async def poll(source: Source, **options: Any) -> list[int]:
    """The numbers that a poller takes until its source is silent."""
    taken: list[int] = []
    polling = asyncio.create_task(poller(source, taken, **options).run())
    silent = asyncio.create_task(source.end.wait())
    async with asyncio.timeout(60):
        await asyncio.wait([polling, silent], return_when=asyncio.FIRST_COMPLETED)
    for task in (polling, silent):
        task.cancel()
    if polling.done():
        polling.result()
    return taken


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
    async with asyncio.timeout(60):
        await source.end.wait()
    task.cancel()
    assert taken == [4, 3, 5]
    assert [offset for offset, _ in source.asked] == [None, 5, 5, 5, 5, 5, 5, 6]
    source.answers.append([])
    await polling.acknowledge()
    assert source.asked[-1] == (6, False)


async def test_a_revoked_token_ends_the_poller_with_a_fault() -> None:
    source = Source([{"update_id": 1}], InvalidToken("Unauthorized"))
    with pytest.raises(InvalidToken):
        await poll(source, refused=[True])
    assert not source.answers


async def test_a_refusal_in_passing_ends_nothing() -> None:
    source = Source([{"update_id": 1}], InvalidToken("Not Found"), [{"update_id": 2}])
    assert await poll(source, refused=[False]) == [1, 2]


async def test_empty_answers_at_once_are_asked_for_once_a_second() -> None:
    pauses = Pauses()
    assert await poll(Source(*([] for _ in range(50))), pauses=pauses) == []
    assert len(pauses) == 50
    assert sum(pauses) == pytest.approx(50, abs=2)


async def test_a_batch_that_comes_again_and_again_is_asked_for_ever_more_rarely() -> None:
    pauses = Pauses()
    batch: list[object] = [{"update_id": 1}]
    await poll(Source(*(list(batch) for _ in range(8))), pauses=pauses)
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30]


@pytest.mark.parametrize("status", [401, 404])
async def test_a_bot_outlives_a_proxy_that_refuses_for_a_moment(
    tmp_path: Path, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with fakes.bot(tmp_path) as sandbox:
        sandbox.faults.add(Fault(FaultKind.SERVER_ERROR, 1, "getUpdates", status=status))
        ana = sandbox.person("ana")
        for _ in range(2):  # the first one is in the answer that was asked for before
            await ana.send_text("hello")
            assert (await ana.reply()).text
    assert "getUpdates" in caplog.text


async def test_a_webhook_that_another_program_sets_is_taken_away_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with fakes.bot(tmp_path) as sandbox:
        ana = sandbox.person("ana")
        other = Telegram(sandbox.token, base_url=sandbox.bot_api_url)
        async with other:
            await other.set_webhook(f"http://127.0.0.1:{fakes.free_port()}/")
        for _ in range(2):
            await ana.send_text("hello")
            assert (await ana.reply()).text
    assert "another program uses this bot's token" in caplog.text


async def test_a_webhook_that_cannot_be_taken_away_ends_nothing() -> None:
    in_the_way = Conflict("Conflict: can't use getUpdates method while webhook is active")
    source = Source(in_the_way, in_the_way, in_the_way, [{"update_id": 1}])
    answers: list[Exception | None] = [TimedOut(), None, None]

    async def remove_webhook() -> None:
        answer = answers.pop(0)
        if answer is not None:
            raise answer

    pauses = Pauses()
    assert await poll(source, pauses=pauses, remove_webhook=remove_webhook) == [1]
    assert not answers
    assert pauses == [0.5, 1, 2]


async def test_a_fault_that_is_nobody_s_answer_is_logged_and_polling_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pauses = Pauses()
    source = Source(ArithmeticError("a bug"), ArithmeticError("a bug"), [{"update_id": 5}])
    assert await poll(source, pauses=pauses) == [5]
    assert "ArithmeticError: a bug" in caplog.text
    assert pauses[1] == 2 * pauses[0]
