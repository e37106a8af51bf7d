"""What buttons need is kept for a while, in bounds, and then forgotten."""

from dataclasses import replace
from itertools import count

from bot.answers import Answer, Answers
from bot.captions import fit
from bot.shown import LeftOut
from tests.bot.fakes import analysis, face


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def answers(clock: Clock, limit: int = 3) -> Answers:
    numbers = count()
    return Answers(lifetime_s=60, limit=limit, clock=clock, key=lambda: f"key{next(numbers)}")


def answer(owner: int = 1) -> Answer:
    return Answer(owner, "file", analysis(face()), LeftOut(), "es", analysis(face()))


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


def test_keys_cannot_be_guessed() -> None:
    kept = Answers(lifetime_s=60, limit=1000)
    keys = {kept.keep(answer()) for _ in range(100)}
    assert len(keys) == 100
    assert all(len(key) >= 16 for key in keys)


def test_a_caption_is_cut_where_telegram_counts() -> None:
    assert fit("a" * 1024) == "a" * 1024
    for text in ("a" * 1025, "🙂" * 600):
        cut = fit(text)
        assert len(cut.encode("utf-16-le")) // 2 <= 1024
        assert cut.endswith("…")


def test_a_persons_answers_come_newest_first_and_nobody_elses() -> None:
    kept = answers(Clock())
    kept.keep(answer(1))
    kept.keep(replace(answer(2), file_id="theirs"))
    kept.keep(replace(answer(1), file_id="newest"))
    assert [found.file_id for found in kept.of(1)] == ["newest", "file"]
