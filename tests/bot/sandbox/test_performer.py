"""Generated clips: what they look like as files, and that each attack is what it says."""

import io
import random

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from bot.login.liveness import Challenge, Step
from bot.sandbox import performer
from bot.sandbox.performer import NEEDS_OTHER, SIDE_PX, Attack, Portrait, perform, write

SUDO = Challenge.parse("sudo")
LANDMARKS = np.array([(203.7, 100.6), (246.9, 103.4), (224.8, 128.9), (202, 139.3), (245, 141.3)])
"""Of the astronaut, as the engine finds them."""


@pytest.fixture(scope="module")
def astronaut() -> Portrait:
    return Portrait.of(data.astronaut(), LANDMARKS)


@pytest.fixture(scope="module")
def somebody_else(astronaut: Portrait) -> Portrait:
    """The astronaut in a mirror, in blue light: for a picture's sake somebody else."""
    flipped = np.ascontiguousarray(astronaut.pixels[:, ::-1, ::-1])
    points = (astronaut.landmarks * (-1, 1) + (flipped.shape[1], 0))[[1, 0, 2, 4, 3]]
    return Portrait.of(flipped, points)


def frames_of(clip: bytes) -> list[NDArray[np.uint8]]:
    with av.open(io.BytesIO(clip), "r") as container:
        frames = container.decode(video=0)
        return [frame.to_ndarray(format="rgb24").astype(np.uint8) for frame in frames]


def act(who: Portrait, attack: Attack | None = None, seed: int = 3, **options: object) -> bytes:
    values: dict[str, object] = {"frames_per_s": 1, "brisk": True, **options}
    return perform(who, SUDO, seed=seed, attack=attack, **values)  # type: ignore[arg-type]


def test_a_clip_is_a_square_h264_video_of_6_to_15_seconds(astronaut: Portrait) -> None:
    for brisk, seed in ((True, 1), (False, 2)):
        with av.open(io.BytesIO(act(astronaut, seed=seed, brisk=brisk)), "r") as container:
            stream = container.streams.video[0]
            assert (stream.width, stream.height) == (SIDE_PX, SIDE_PX)
            assert stream.codec_context.name == "h264"
            assert container.duration is not None
            assert 6 <= container.duration / av.time_base <= 15


def test_the_same_seed_draws_the_same_clip_and_another_one_another(astronaut: Portrait) -> None:
    drawn = act(astronaut, seed=5)
    assert act(astronaut, seed=5) == drawn
    assert act(astronaut, seed=6) != drawn


def test_a_picture_file_will_do(astronaut: Portrait) -> None:
    file = io.BytesIO()
    Image.fromarray(astronaut.pixels).save(file, "PNG")
    assert act(Portrait.of(file.getvalue(), LANDMARKS)) == act(astronaut)


@pytest.mark.parametrize("attack", Attack)
def test_every_attack_can_be_filmed(
    attack: Attack, astronaut: Portrait, somebody_else: Portrait
) -> None:
    frames = frames_of(act(astronaut, attack, other=somebody_else))
    assert len(frames) >= 6
    side = frames[0].shape[0]
    assert all(frame.shape == (side, side, 3) for frame in frames)
    assert (side == SIDE_PX) is (attack is not Attack.RECODED)
    assert all(frame.std() > 10 for frame in frames)


@pytest.mark.parametrize("attack", sorted(NEEDS_OTHER))
def test_what_takes_two_people_says_so(attack: Attack, astronaut: Portrait) -> None:
    with pytest.raises(ValueError, match="somebody else"):
        act(astronaut, attack)


def test_what_is_no_portrait_is_refused(astronaut: Portrait) -> None:
    for pixels, landmarks in (
        (astronaut.pixels, LANDMARKS[:4]),
        (astronaut.pixels, np.ones((5, 2))),
        (astronaut.pixels, np.full((5, 2), np.nan)),
        (astronaut.pixels[:, :, 0], LANDMARKS),
    ):
        with pytest.raises(ValueError, match=r"portrait|landmarks"):
            Portrait.of(pixels, landmarks)


def test_photos_do_what_their_attack_says() -> None:
    for seed in range(10):
        still, moved, tilted, curved = (
            write(SUDO, random.Random(seed), attack=attack)
            for attack in (Attack.STILL, Attack.MOVED, Attack.TILTED, Attack.BENT)
        )
        assert np.ptp(still.motion.yaw) == np.ptp(still.motion.pitch) == 0
        assert np.abs(moved.motion.yaw).max() < 20
        assert np.ptp(moved.motion.roll) > 20
        assert 15 <= np.abs(tilted.motion.yaw).max() <= 70
        assert tilted.paper is not None
        assert tilted.paper.bend == 0
        assert curved.paper is not None
        assert 20 <= abs(curved.paper.bend) <= 60


def test_scripts_go_where_the_steps_say() -> None:
    script = write(SUDO, random.Random(1))
    motion = script.motion
    first = {
        Step.SIDE: int(motion.yaw.argmin()),
        Step.UP: int(motion.pitch.argmin()),
        Step.DOWN: int(motion.pitch.argmax()),
        Step.OTHER_SIDE: int(motion.yaw.argmax()),
    }
    assert sorted(first, key=lambda step: first[step]) == list(SUDO.steps)
    assert 30 <= -motion.yaw.min() <= 50
    assert 30 <= motion.yaw.max() <= 50
    assert 20 <= -motion.pitch.min() <= 34
    assert 20 <= motion.pitch.max() <= 34
    assert abs(motion.yaw[0]) < 5
    assert abs(motion.yaw[-1]) < 5


def test_aligned_pieces_fit_where_they_are_joined_and_others_do_not() -> None:
    for seed in range(5):
        cut, aligned = (
            write(SUDO, random.Random(seed), attack=attack).motion
            for attack in (Attack.CUT, Attack.CUT_ALIGNED)
        )
        assert max(np.abs(np.diff(cut.roll)).max(), 50 * np.abs(np.diff(cut.scale)).max()) > 2
        assert np.abs(np.diff(aligned.roll)).max() < 1.5
        assert np.abs(np.diff(aligned.scale)).max() < 0.02
        assert np.abs(np.diff(aligned.x)).max() < 0.05
        np.testing.assert_array_equal(aligned.yaw, cut.yaw)


def test_wrong_orders_and_replays_are_never_what_was_asked() -> None:
    lot = random.Random(2)
    for code in ("sudo", "udud", "soso", "sdsu"):
        asked = Challenge.parse(code)
        for _ in range(20):
            assert performer.reordered(asked, lot) not in (asked, asked.mirrored)
