"""What the buttons below an answer need, for as long as they work; in memory only.

Holds what the engine saw, never the person's picture. Knows nothing about Telegram but ids.
"""

import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from bot.lookalike.face_choice import LeftOut
from engine.types import Analysis, Face

BYTES_MAX = 32 * 2**20
"""Memory that all answers together may take."""
# What their parts take, by tracemalloc, rounded up; a picture's is what it takes beside its bytes.
_ANSWER_BYTES = 1_500
_FACE_BYTES = 1_500
_MATCH_BYTES = 260
_PICTURE_BYTES = 350


@dataclass(frozen=True, slots=True)
class ShownCard:
    """An answer that was given.

    Attributes:
        owner: the Telegram id of the person it was given to.
        file_id: Telegram's name for the photo, by which it can be fetched again.
        analysis: the faces shown, from left to right, with the matches that are shown.
        left_out: how many faces are not shown.
        language: in which it was given.
        compared: the same faces with all matches by which they are told again
            (`bot.lookalike.stable_answers`).
        people: how many people the bundle that answered knows; None where that is not known.
    """

    owner: int
    file_id: str
    analysis: Analysis
    left_out: LeftOut
    language: str
    compared: tuple[Face, ...]
    people: int | None = None

    @property
    def counts(self) -> tuple[int, ...]:
        """Of each face shown, how many matches are."""
        return tuple(len(face.matches) for face in self.analysis.faces)


class ShownCards:
    """The newest answers, under keys that say nothing.

    Args:
        lifetime_s: how long an answer is kept.
        limit: how many are kept; the oldest go first.
        pictures: of how many matches of a face the pictures are kept, at most.
        bytes_max: how much memory they may take together; the oldest go first.
        clock: seconds that only move forward.
        key: makes a key nobody can guess.
    """

    def __init__(
        self,
        *,
        lifetime_s: float,
        limit: int,
        pictures: int,
        bytes_max: int = BYTES_MAX,
        clock: Callable[[], float] = time.monotonic,
        key: Callable[[], str] = lambda: secrets.token_urlsafe(12),
    ) -> None:
        self._lifetime_s = lifetime_s
        self._limit = limit
        self._pictures_each = pictures
        self._bytes_max = bytes_max
        self._clock = clock
        self._key = key
        self._kept: OrderedDict[str, tuple[float, ShownCard]] = OrderedDict()
        self._bytes = 0
        self._pictures: dict[bytes, bytes] = {}
        self._users = Counter[bytes]()

    def keep(self, answer: ShownCard) -> str:
        """Keep an answer; its key. One that is larger than all that may be kept is not."""
        self._forget_old()
        self._bytes += _bytes_without_pictures(answer)
        for picture in self._pictures_of(answer):
            if picture not in self._pictures:
                self._pictures[picture] = picture
                self._bytes += _PICTURE_BYTES + len(picture)
            self._users[picture] += 1
        answer = replace(
            answer,
            analysis=replace(
                answer.analysis, faces=self._with_kept_pictures(answer.analysis.faces)
            ),
            compared=self._with_kept_pictures(answer.compared),
        )
        key = self._key()
        self._kept[key] = (self._clock() + self._lifetime_s, answer)
        while self._kept and (len(self._kept) > self._limit or self._bytes > self._bytes_max):
            self._forget(next(iter(self._kept)))
        return key

    def find(self, key: str) -> ShownCard | None:
        """The answer under a key, unless it was dropped or its time is over."""
        self._forget_old()
        found = self._kept.get(key)
        return found[1] if found else None

    def compared(self, owner: int, bundle: str) -> list[Face]:
        """The faces that a person was shown of a bundle, newest first: see `ShownCard.compared`."""
        self._forget_old()
        return [
            face
            for _, answer in reversed(self._kept.values())
            if answer.owner == owner and answer.analysis.bundle == bundle
            for face in answer.compared
        ]

    def drop(self, key: str) -> None:
        """Forget an answer."""
        if key in self._kept:
            self._forget(key)

    def _forget_old(self) -> None:
        now = self._clock()
        while self._kept and next(iter(self._kept.values()))[0] <= now:
            self._forget(next(iter(self._kept)))

    def _forget(self, key: str) -> None:
        _, answer = self._kept.pop(key)
        self._bytes -= _bytes_without_pictures(answer)
        for picture in self._pictures_of(answer):
            self._users[picture] -= 1
            if not self._users[picture]:
                del self._users[picture], self._pictures[picture]
                self._bytes -= _PICTURE_BYTES + len(picture)

    def _with_kept_pictures(self, faces: Sequence[Face]) -> tuple[Face, ...]:
        """The same; of equal pictures, which an engine elsewhere sends again, one is kept."""
        return tuple(
            replace(
                face,
                matches=tuple(
                    replace(
                        match,
                        thumbnail=self._pictures[match.thumbnail]
                        if place < self._pictures_each
                        else None,
                    )
                    if match.thumbnail
                    else match
                    for place, match in enumerate(face.matches)
                ),
            )
            for face in faces
        )

    def _pictures_of(self, answer: ShownCard) -> set[bytes]:
        return {
            match.thumbnail
            for face in (*answer.analysis.faces, *answer.compared)
            for match in face.matches[: self._pictures_each]
            if match.thumbnail
        }


def _bytes_without_pictures(answer: ShownCard) -> int:
    matches = sum(len(face.matches) for face in answer.compared)
    return _ANSWER_BYTES + _FACE_BYTES * len(answer.compared) + _MATCH_BYTES * matches
