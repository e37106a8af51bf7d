"""Slide shows and joined films, as the engine itself sees them: refused, and a head is not."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
from skimage import data

from bot.login.liveness import (
    LIMITS,
    Challenge,
    Failure,
    FailureReason,
    Performance,
    Reading,
    Step,
    judge,
    read,
)
from bot.sandbox.performer import SIDE_PX, Attack, Portrait, perform
from engine.client import EmbeddedEngine
from engine.settings import Settings
from engine.types import Track
from tests.bot.sandbox.test_performer import LANDMARKS, frames_of
from tests.bot.slides import COUNTS, Edit, show

FRAMES_PER_S = 10
ANY_CUT = replace(
    LIMITS, yaw_jump=9.0, pitch_jump=9.0, place_jump=9.0, rest_roll_deg=999.0, rest_growth=9.0
)
"""Under which nothing is a cut."""
SUDO = Challenge.parse("sudo")
SEED = 1
SHOWS = tuple(zip(Edit, (5, 9, 9, 17, 5, 9), strict=True))
REACH = {
    Step.SIDE: (38.0, 46.0),
    Step.OTHER_SIDE: (40.0, 46.0),
    Step.UP: (24.0, 32.0),
    Step.DOWN: (17.0, 22.0),
}
"""At which the engine sees enough of the astronaut's head, which is turned a little."""
ASTRONAUT = replace(Portrait.of(data.astronaut(), LANDMARKS), reach=REACH)


def a_show(edit: Edit, count: int, frames_per_s: int = FRAMES_PER_S) -> bytes:
    return show(
        ASTRONAUT, SUDO, count=count, edit=edit, seed=SEED, frames_per_s=frames_per_s, brisk=True
    )


def a_film(attack: Attack | None) -> bytes:
    return perform(ASTRONAUT, SUDO, seed=SEED, attack=attack, frames_per_s=FRAMES_PER_S, brisk=True)


@pytest.fixture(scope="module")
def tracks(one_in: Callable[[int], int]) -> Mapping[str, Track]:
    """What an engine sees in a clip of each kind; of slide shows, the first and the last."""

    async def see() -> dict[str, Track]:
        async with await EmbeddedEngine.open(Settings(engine_device="cpu")) as engine:
            seen = {
                "head": await engine.track(a_film(None)),
                "cut": await engine.track(a_film(Attack.CUT)),
            }
            for edit, count in SHOWS[:: one_in(len(SHOWS) - 1)]:
                seen[edit] = await engine.track(a_show(edit, count))
        return seen

    return asyncio.run(see())


def test_a_head_that_does_as_asked_passes(tracks: Mapping[str, Track]) -> None:
    judged = judge(SUDO, tracks["head"])
    assert isinstance(judged, Performance), judged


def test_pictures_shown_one_after_the_other_are_still(tracks: Mapping[str, Track]) -> None:
    shown = [track for name, track in tracks.items() if isinstance(name, Edit)]
    assert len(shown) > 1
    for track in shown:
        assert isinstance(judge(SUDO, track), Failure)
        # However well they fit together.
        reading = read(track, ANY_CUT)
        assert isinstance(reading, Reading), reading
        assert reading.still


def test_films_of_one_step_each_joined_as_they_are_are_refused(
    tracks: Mapping[str, Track],
) -> None:
    assert isinstance(read(tracks["cut"], ANY_CUT), Reading)
    assert read(tracks["cut"]) == Failure(FailureReason.JUMP)


@pytest.mark.parametrize(
    ("edit", "count"), [(Edit.PLAIN, 5), (Edit.FADED, 17), (Edit.MORPHED_AND_SHAKEN, 5)]
)
def test_a_show_is_a_video_of_its_pictures(edit: Edit, count: int) -> None:
    clip = a_show(edit, count, frames_per_s=1)
    assert clip == a_show(edit, count, frames_per_s=1)
    frames = frames_of(clip)
    assert len(frames) >= 6
    assert all(frame.shape == (SIDE_PX, SIDE_PX, 3) for frame in frames)
    assert all(frame.std() > 10 for frame in frames)


def test_a_show_has_one_of_a_few_numbers_of_pictures() -> None:
    assert COUNTS == (5, 9, 17)
    with pytest.raises(ValueError, match="pictures"):
        a_show(Edit.PLAIN, 6)
