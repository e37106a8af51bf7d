"""The watch over the webhook: what it says, what it mends, and how often it asks."""

import random
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from telegram import WebhookInfo
from telegram.error import InvalidToken, NetworkError

from bot.telegram.webhook_watch import Watch

URL = "https://bot.example/telegram"
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Over(BaseException):
    """Telegram has no more answers."""


class Scene:
    """A watch, and Telegram, which answers getWebhookInfo with what a test put in."""

    def __init__(self, *answers: WebhookInfo | Exception, refused: Iterable[bool] = ()) -> None:
        self.answers, self.verdicts = list(answers), iter(refused)
        self.pauses: list[float] = []
        self.set_again = 0
        self.problems: list[str | None] = []
        self.watch = Watch(
            ask=self._ask,
            set_again=self._set_again,
            refused=self._refused,
            url=URL,
            every_s=60,
            chance=random.Random(1),
            sleep=self._sleep,
            now=lambda: NOW,
        )

    async def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.problems.append(self.watch.problem)

    async def _ask(self) -> WebhookInfo:
        if not self.answers:
            raise Over
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _set_again(self) -> None:
        self.set_again += 1

    async def _refused(self) -> bool:
        return next(self.verdicts)

    async def end(self) -> "Scene":
        with pytest.raises(Over):
            await self.watch.run()
        return self


def info(
    url: str = URL, pending: int = 0, ago: timedelta | None = None, **more: Any
) -> WebhookInfo:
    failed: dict[str, Any] = (
        {"last_error_date": NOW - ago, "last_error_message": "Connection refused"} if ago else {}
    )
    return WebhookInfo(url, False, pending, **failed, **more)


async def test_nothing_is_wrong_where_updates_come() -> None:
    old = info(pending=2, ago=timedelta(hours=1))
    scene = await Scene(info(), old, info("https://BOT.example:443/telegram")).end()
    assert scene.problems == [None] * 4
    assert scene.set_again == 0
    assert (await Scene(old).end()).watch.pending == 2


async def test_questions_are_jittered() -> None:
    pauses = (await Scene(*(info() for _ in range(30))).end()).pauses
    assert all(48 <= pause <= 72 for pause in pauses)
    assert max(pauses) - min(pauses) > 10


async def test_a_webhook_taken_each_time_is_set_again_ever_more_rarely(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = await Scene(*(info("https://thief.example/secret") for _ in range(8)), info()).end()
    assert scene.set_again == 8
    nearly = [round(pause / 60 / 2 ** min(n, 5), 1) for n, pause in enumerate(scene.pauses[:-1])]
    assert all(0.8 <= factor <= 1.2 for factor in nearly)
    assert scene.pauses[-1] <= 72
    assert scene.problems[-1] is None
    assert "another program uses this bot's token" in caplog.text
    assert "thief.example" in caplog.text
    assert "secret" not in caplog.text


async def test_a_failed_delivery_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    failed = [info(pending=3, ago=timedelta(seconds=10)) for _ in range(3)]
    scene = await Scene(*failed, info(ago=timedelta(seconds=5))).end()
    assert scene.problems == [None, *["Connection refused"] * 4]
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert told[0].endswith("Connection refused; pending=3")


async def test_it_goes_on_while_telegram_is_away() -> None:
    scene = await Scene(NetworkError("reset"), InvalidToken("x"), info(), refused=[False]).end()
    assert scene.problems[1] == "the webhook could not be looked after: NetworkError"
    assert scene.problems[3] is None


async def test_a_token_refused_for_good_ends_it() -> None:
    with pytest.raises(InvalidToken):
        await Scene(InvalidToken("Unauthorized"), refused=[True]).watch.run()


async def test_the_watch_goes_on_after_any_fault(caplog: pytest.LogCaptureFixture) -> None:
    scene = await Scene(info(url="http://[not an address"), ArithmeticError("a bug"), info()).end()
    assert len(scene.pauses) == 4
    assert "ValueError" in caplog.text
    assert "ArithmeticError: a bug" in caplog.text
    assert scene.problems[-1] is None
