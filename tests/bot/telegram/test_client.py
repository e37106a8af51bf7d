"""When a token counts as refused."""

import pytest
from telegram.error import InvalidToken, NetworkError

from bot.telegram.client import refused_for_good


async def refusal(*answers: Exception | bool) -> tuple[bool, list[float]]:
    left = list(answers)
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    async def ask() -> object:
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return await refused_for_good(ask, sleep=sleep), pauses


async def test_a_token_is_refused_when_telegram_says_so_again_and_again() -> None:
    assert await refusal(*(InvalidToken("Unauthorized") for _ in range(5))) == (
        True,
        [1, 2, 4, 8, 16],
    )


@pytest.mark.parametrize("answer", [True, NetworkError("x")])
async def test_a_token_that_is_taken_or_not_asked_about_is_not_refused(
    answer: Exception | bool,
) -> None:
    assert await refusal(InvalidToken("Not Found"), answer) == (False, [1, 2])
