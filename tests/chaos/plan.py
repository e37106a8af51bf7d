"""What people do and what goes wrong in a run, drawn from a seed before it begins.

Knows nothing about how any of it is carried out.
"""

import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Act(StrEnum):
    """What a person does."""

    PHOTO = "photo"
    PICTURE_FILE = "picture_file"
    OTHER_FILE = "other_file"
    ALBUM = "album"
    TEXT = "text"
    COMMAND = "command"
    OTHER = "other"
    EDIT_TEXT = "edit_text"
    EDIT_PHOTO = "edit_photo"
    PRESS = "press"
    BURST = "burst"


class Trouble(StrEnum):
    """What goes wrong."""

    TOO_MANY_REQUESTS = "too_many_requests"
    SERVER_ERROR = "server_error"
    RESET = "reset"
    LOST_ANSWER = "lost_answer"
    SLOW = "slow"
    TRUNCATED_DOWNLOAD = "truncated_download"
    DUPLICATE_UPDATE = "duplicate_update"
    REORDER_UPDATES = "reorder_updates"
    WEBHOOK_TAKEN = "webhook_taken"
    DATABASE_STALLS = "database_stalls"
    ENGINE_HANGS = "engine_hangs"
    ENGINE_SILENT = "engine_silent"
    CLOCK_JUMP = "clock_jump"
    KILL = "kill"
    STOP = "stop"


CALM = "calm"
"""Everything is lifted, nobody writes, and the bot is looked at when it has answered all."""

ENDINGS = frozenset({Trouble.KILL, Trouble.STOP})

_ACTS = {
    Act.PHOTO: 30,
    Act.COMMAND: 18,
    Act.TEXT: 12,
    Act.PRESS: 12,
    Act.ALBUM: 8,
    Act.PICTURE_FILE: 5,
    Act.EDIT_PHOTO: 4,
    Act.EDIT_TEXT: 4,
    Act.OTHER: 4,
    Act.OTHER_FILE: 3,
    Act.BURST: 2,
}
COMMANDS = (
    "/start",
    "/help",
    "/privacy",
    "/who",
    "/who ada",
    "/language",
    "/mydata",
    "/enroll",
    "/verify",
    "/cancel",
    "/nonsense",
)
OTHERS = ("sticker", "voice", "audio", "location", "contact", "video", "video_note", "animation")
# How often each kind comes in a deck of all of them.
_DECK = {
    Trouble.TOO_MANY_REQUESTS: 4,
    Trouble.SERVER_ERROR: 3,
    Trouble.RESET: 3,
    Trouble.LOST_ANSWER: 2,
    Trouble.SLOW: 2,
    Trouble.TRUNCATED_DOWNLOAD: 2,
    Trouble.DUPLICATE_UPDATE: 2,
    Trouble.REORDER_UPDATES: 2,
    Trouble.DATABASE_STALLS: 2,
    Trouble.ENGINE_HANGS: 2,
}
_SENDING = ("sendMessage", "sendPhoto", "sendMediaGroup", "editMessageMedia", "answerCallbackQuery")
_CALLS = (*_SENDING, *_SENDING, "getFile", "download", "getUpdates", "sendChatAction", "*", "*")
_STATUSES = (500, 502, 502, 503, 504)


@dataclass(frozen=True, slots=True)
class Pace:
    """How long and how dense a run is, in seconds.

    Attributes:
        length_s: of what is planned; calm moments and the end come on top.
        answer_s: after how long a person must have an answer.
        act_every_s: between two acts of one person, on the mean.
        trouble_every_s: between two troubles, on the mean.
        throttled_s: the longest 429.
        stall_s: the longest stall of database or engine, and the longest time without a bot.
        calm_every_s: between two calm moments.
        quiet_s: after which the bot is looked at when it has answered all; by default longer than
            idle connections are kept.
        endings_until: share of the run after which no bot is killed or stopped any more, so that
            one of them lives long enough for its memory to tell something.
        people: how many.
        deck: how often each kind of trouble comes in a deck of all kinds; kinds that are not in it
            come once.
    """

    length_s: float
    answer_s: float = 30.0
    act_every_s: float = 10.0
    trouble_every_s: float = 10.0
    throttled_s: float = 120.0
    stall_s: float = 25.0
    calm_every_s: float = 300.0
    quiet_s: float = 7.0
    endings_until: float = 0.6
    people: int = 6
    deck: Mapping[Trouble, int] = field(default_factory=lambda: _DECK)


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that is to happen.

    Attributes:
        at_s: seconds from the beginning, without calm moments.
        what: an `Act`, a `Trouble` or `CALM`.
        who: number of the person who acts; None where nobody does.
        values: the rest, by name; fit for JSON.
    """

    at_s: float
    what: str
    who: int | None = None
    values: Mapping[str, Any] = field(default_factory=dict)

    def fields(self) -> dict[str, Any]:
        """The event as JSON."""
        return asdict(self)


def draw(seed: int, pace: Pace) -> list[Event]:
    """The events of a run, in order: the same for the same seed and pace."""
    events = [*_calms(pace), *_troubles(random.Random(f"troubles {seed}"), pace)]
    for who in range(pace.people):
        events += _acts(random.Random(f"person {who} {seed}"), who, pace)
    return sorted(events, key=lambda event: (event.at_s, event.what, event.who or 0))


def _moments(chance: random.Random, every_s: float, length_s: float) -> Iterator[float]:
    at_s = chance.expovariate(1 / every_s)
    while at_s < length_s:
        yield round(at_s, 3)
        at_s += chance.expovariate(1 / every_s)


def _calms(pace: Pace) -> Iterator[Event]:
    for number in range(1, math.ceil(pace.length_s / pace.calm_every_s)):
        yield Event(number * pace.calm_every_s, CALM)


def _acts(chance: random.Random, who: int, pace: Pace) -> Iterator[Event]:
    acts, weights = list(_ACTS), list(_ACTS.values())
    for at_s in _moments(chance, pace.act_every_s, pace.length_s):
        (act,) = chance.choices(acts, weights)
        yield Event(at_s, act, who, _act_values(chance, act))


def _act_values(chance: random.Random, act: Act) -> dict[str, Any]:
    match act:
        case Act.ALBUM:
            return {"pick": chance.randrange(100), "count": chance.randint(2, 4)}
        case Act.COMMAND:
            return {"text": chance.choice(COMMANDS)}
        case Act.OTHER:
            return {"kind": chance.choice(OTHERS)}
        case Act.BURST:
            return {"count": chance.randint(5, 9), "photos": chance.random() < 0.3}
        case _:
            return {"pick": chance.randrange(100)}


def _troubles(chance: random.Random, pace: Pace) -> Iterator[Event]:
    """Troubles from shuffled decks, so that each kind comes before any comes too often."""
    moments = list(_moments(chance, pace.trouble_every_s, pace.length_s))
    for at_s, trouble in zip(moments, _dealt(chance, pace), strict=False):
        if trouble in ENDINGS and at_s > pace.endings_until * pace.length_s:
            continue
        yield Event(at_s, trouble, values=_trouble_values(chance, trouble, pace))


def _dealt(chance: random.Random, pace: Pace) -> Iterator[Trouble]:
    deck: Sequence[Trouble] = [one for one in Trouble for _ in range(pace.deck.get(one, 1))]
    while True:
        yield from chance.sample(deck, len(deck))


def _trouble_values(chance: random.Random, trouble: Trouble, pace: Pace) -> dict[str, Any]:
    match trouble:
        case Trouble.TOO_MANY_REQUESTS:
            wait_s = math.ceil(_log_uniform(chance, 1, pace.throttled_s))
            return {**_call(chance, _CALLS, 3), "retry_after_s": wait_s}
        case Trouble.SERVER_ERROR:
            return {**_call(chance, _CALLS, 5), "status": chance.choice(_STATUSES)}
        case Trouble.RESET:
            return _call(chance, _CALLS, 4)
        case Trouble.LOST_ANSWER:
            return _call(chance, (*_SENDING, "getUpdates"), 2)
        case Trouble.SLOW:
            delay_s = round(_log_uniform(chance, 0.3, pace.stall_s), 1)
            return {**_call(chance, _CALLS, 3), "delay_s": delay_s}
        case Trouble.TRUNCATED_DOWNLOAD | Trouble.DUPLICATE_UPDATE | Trouble.REORDER_UPDATES:
            return {"count": chance.randint(1, 4)}
        case Trouble.CLOCK_JUMP:
            shift_s = round(_log_uniform(chance, 70, 4e5)) * chance.choice((-1, 1))
            return {"shift_s": shift_s, "for_s": round(chance.uniform(12, 40), 1)}
        case Trouble.KILL | Trouble.STOP:
            return {"for_s": round(chance.uniform(0, pace.stall_s / 2), 1)}
        case Trouble.WEBHOOK_TAKEN:
            return {"deleted": chance.random() < 0.5}
        case _:
            return {"for_s": round(_log_uniform(chance, 1, pace.stall_s), 1)}


def _call(chance: random.Random, methods: Iterable[str], most: int) -> dict[str, Any]:
    return {"method": chance.choice(list(methods)), "count": chance.randint(1, most)}


def _log_uniform(chance: random.Random, least: float, most: float) -> float:
    return math.exp(chance.uniform(math.log(least), math.log(most)))
