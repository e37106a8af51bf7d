"""The picture of a challenge: everything stands where it can be read, in both languages."""

import io
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from bot.drawing import lettering
from bot.drawing.canvas import Arrow, Panel, Text
from bot.login import challenge_card
from bot.login.liveness import Challenge, Step, every
from bot.texts import LANGUAGES, say

CHALLENGE = Challenge((Step.SIDE, Step.UP, Step.OTHER_SIDE, Step.DOWN))


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_step_has_its_arrow_in_order(language: str) -> None:
    layout = challenge_card.compose(CHALLENGE, language)
    arrows = [item for item in layout.items if isinstance(item, Arrow)]
    assert [arrow.degrees for arrow in arrows] == [180.0, 90.0, 0.0, 270.0]
    assert [arrow.spot.x for arrow in arrows] == sorted(arrow.spot.x for arrow in arrows)
    words = [item.text for item in layout.items if isinstance(item, Text)]
    names = [say(language, f"challenge.{name}") for name in ("side", "up", "other_side", "down")]
    assert [word for word in words if word in names] == names


def test_whichever_side_comes_first_is_one_side() -> None:
    layout = challenge_card.compose(Challenge.parse("uouo"), "en")
    words = [item.text for item in layout.items if isinstance(item, Text)]
    assert words.count(say("en", "challenge.side")) == 2
    assert say("en", "challenge.other_side") not in words


@pytest.mark.parametrize("language", LANGUAGES)
def test_everything_is_inside_and_nothing_overlaps(language: str) -> None:
    for challenge in every()[::9]:
        layout = challenge_card.compose(challenge, language)
        tiles = [item.spot for item in layout.items if isinstance(item, Panel)]
        assert not any(a.overlaps(b) for a, b in combinations(tiles, 2))
        for item in layout.items:
            assert item.spot.x >= 0
            assert item.spot.right <= layout.width
            assert item.spot.bottom <= layout.height
        for text in (item for item in layout.items if isinstance(item, Text)):
            assert lettering.measure(text.text, text.style) <= text.spot.width


def test_arrows_point_where_they_say() -> None:
    shown = {}
    for step in Step:
        other = Step.UP if step is Step.DOWN else Step.DOWN
        challenge = Challenge((step, other, step, other))
        arrow = next(
            item
            for item in challenge_card.compose(challenge, "en").items
            if isinstance(item, Arrow)
        )
        card = Image.open(io.BytesIO(challenge_card.draw(challenge, "en"))).convert("RGB")
        spot = arrow.spot
        inked = card.crop((spot.x, spot.y, spot.right, spot.bottom)).convert("L")
        ink = 255.0 - np.asarray(inked, float)
        middle = len(ink) // 2
        # The head has more ink than the tail.
        left, right = ink[:, :middle].sum(), ink[:, middle:].sum()
        top, bottom = ink[:middle].sum(), ink[middle:].sum()
        shown[step] = max(
            (left, Step.SIDE), (right, Step.OTHER_SIDE), (top, Step.UP), (bottom, Step.DOWN)
        )[1]
    assert shown == {step: step for step in Step}


def test_the_same_challenge_gives_the_same_bytes() -> None:
    assert challenge_card.draw(CHALLENGE, "es") == challenge_card.draw(CHALLENGE, "es")
