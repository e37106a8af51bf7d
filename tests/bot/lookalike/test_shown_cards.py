"""What buttons need is kept for a while, in bounds, and then forgotten."""

import tracemalloc
from dataclasses import replace
from itertools import count

from bot.lookalike.captions import fit
from bot.lookalike.face_choice import LeftOut
from bot.lookalike.shown_cards import BYTES_MAX, ShownCard, ShownCards
from tests.bot.fakes import analysis, face, matches


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def answers(clock: Clock, limit: int = 3) -> ShownCards:
    numbers = count()
    return ShownCards(
        lifetime_s=60, limit=limit, pictures=5, clock=clock, key=lambda: f"key{next(numbers)}"
    )


def answer(owner: int = 1) -> ShownCard:
    return ShownCard(owner, "file", analysis(face()), LeftOut(), "es", (face(),))


def test_an_answer_is_found_until_its_time_is_over() -> None:
    clock = Clock()
    kept = answers(clock)
    key = kept.keep(answer())
    clock.now = 59.9
    assert kept.find(key) == answer()
    clock.now = 60.0
    assert kept.find(key) is None


def test_the_oldest_makes_room_and_a_dropped_one_is_gone() -> None:
    kept = answers(Clock())
    keys = [kept.keep(answer(owner)) for owner in range(4)]
    assert [kept.find(key) is not None for key in keys] == [False, True, True, True]
    kept.drop(keys[2])
    kept.drop("never there")
    assert kept.find(keys[2]) is None


def pictured(number: int, faces: int = 6, size: int = 6400) -> ShownCard:
    """An answer as a remote engine's: every picture has bytes of its own, whoever is on it."""
    found = matches()
    seen = [
        face(
            found=tuple(
                replace(match, thumbnail=bytes([number % 256, place, rank]) * (size // 3))
                for rank, match in enumerate(found)
            )
        )
        for place in range(faces)
    ]
    return ShownCard(number, "file", analysis(*seen), LeftOut(), "es", tuple(seen))


def test_what_is_kept_is_bounded_in_bytes_and_the_oldest_make_room() -> None:
    kept = ShownCards(lifetime_s=60, limit=500, pictures=5)
    tracemalloc.start()
    try:
        keys = [kept.keep(pictured(number)) for number in range(256)]
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken <= BYTES_MAX
    found = [kept.find(key) is not None for key in keys]
    assert found == sorted(found), "the oldest went"
    assert 100 < sum(found) < 256


def test_an_answer_that_is_larger_than_all_that_may_be_kept_is_not() -> None:
    kept = ShownCards(lifetime_s=60, limit=500, pictures=5, bytes_max=50_000)
    small = kept.keep(pictured(1, faces=1))
    assert kept.find(kept.keep(pictured(2, faces=2))) is None
    assert kept.find(small) is None


def test_the_same_person_s_picture_is_kept_once() -> None:
    kept = ShownCards(lifetime_s=60, limit=500, pictures=5, bytes_max=100_000)
    keys = [kept.keep(replace(pictured(1, faces=1), owner=owner)) for owner in range(9)]
    answers = [kept.find(key) for key in keys]
    assert None not in answers, "nine times 32 kB do not fit, once does"
    pictures = {
        id(match.thumbnail)
        for answer in answers
        if answer is not None
        for each in (*answer.analysis.faces, *answer.compared)
        for match in each.matches
    }
    assert len(pictures) == len(matches())
    for key in keys:
        kept.drop(key)
    assert kept.find(kept.keep(pictured(2, faces=2))) is not None, "what is dropped makes room"


def test_keys_cannot_be_guessed() -> None:
    kept = ShownCards(lifetime_s=60, limit=1000, pictures=5)
    keys = {kept.keep(answer()) for _ in range(100)}
    assert len(keys) == 100
    assert all(len(key) >= 16 for key in keys)


def test_a_caption_is_cut_where_telegram_counts() -> None:
    assert fit("a" * 1024) == "a" * 1024
    for text in ("a" * 1025, "🙂" * 600):
        cut = fit(text)
        assert len(cut.encode("utf-16-le")) // 2 <= 1024
        assert cut.endswith("…")


def test_of_a_face_only_so_many_pictures_are_kept() -> None:
    kept = ShownCards(lifetime_s=60, limit=500, pictures=2)
    found = kept.find(kept.keep(pictured(1, faces=1)))
    assert found is not None
    for each in (*found.analysis.faces, *found.compared):
        assert [match.thumbnail is not None for match in each.matches] == [True] * 2 + [False] * 3


def test_a_persons_faces_come_newest_first_and_nobody_elses_or_another_bundles() -> None:
    kept = answers(Clock(), limit=9)
    boxes = [(float(place), 0.0, 9.0, 9.0) for place in range(4)]
    old, theirs, other, new = (
        replace(answer(), compared=(replace(face(), box=box),)) for box in boxes
    )
    kept.keep(old)
    kept.keep(replace(theirs, owner=2))
    kept.keep(replace(other, analysis=replace(other.analysis, bundle="others@2")))
    kept.keep(new)
    assert [seen.box for seen in kept.compared(1, old.analysis.bundle)] == [boxes[3], boxes[0]]
