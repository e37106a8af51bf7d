"""What crosses the store's wall: frozen values, times in UTC, Telegram ids as Telegram writes them.

Knows nothing about tables, keys or encryption.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, StrEnum, auto
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Level = Literal["photo", "video"]


class FlowKind(StrEnum):
    """What a person is in the middle of."""

    ENROLL = "enroll"
    VERIFY = "verify"
    FORGET = "forget"
    RESET = "reset"
    MOVE = "move"


class Right(StrEnum):
    """What lets a person store a face.

    FIRST: there is none yet.
    VIDEO: they passed a challenge by video that was drawn for replacing it.
    CODE: they have the recovery code, which is used up by it.
    WAIT: they asked for it, and the delay is over.
    """

    FIRST = "first"
    VIDEO = "video"
    CODE = "code"
    WAIT = "wait"


@dataclass(frozen=True, slots=True)
class Flow:
    """A conversation of several messages, as it was when it was read.

    Attributes:
        id: random; never given twice.
        kind: what it is about.
        state: JSON-able; encrypted at rest.
        revision: counts the changes; whoever holds an older one has been overtaken.
        deadline: from then on there is no such flow.
        telegram_id: whose it is.
    """

    id: int
    kind: FlowKind
    state: Mapping[str, Any]
    revision: int
    deadline: datetime
    telegram_id: int


@dataclass(frozen=True, slots=True)
class Membership:
    """That a person is enrolled, and how they stand.

    Attributes:
        since: of the templates in force.
        last_used: of the last passed verification, if any.
        embedder: id of the embedder that made the templates.
        templates: how many there are.
        deleted_on: when the templates go if they are not used before.
        locked: whether only the recovery code or an operator helps.
    """

    since: datetime
    last_used: datetime | None
    embedder: str
    templates: int
    deleted_on: datetime
    locked: bool


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What an enrolment that came to its end leaves.

    Attributes:
        embedder: id of the embedder that made the vectors.
        vectors: (k, d) float32, k >= 1, finite, no two of the same capture.
        consent: version of the text that the person agreed to.
        recovery_code: to be valid from now on, as `new_recovery_code` makes it; None keeps the one
            that there is.
        language: in which the text of the consent was shown.
        right: what lets the person store a face.
    """

    embedder: str
    vectors: NDArray[np.float32]
    consent: str
    recovery_code: str | None
    language: str
    right: Right = Right.FIRST


@dataclass(frozen=True, slots=True)
class Templates:
    """A person's face, in the open: never to be logged or kept.

    Attributes:
        embedder: id of the embedder that made them.
        vectors: (k, d) float32, as they were enrolled.
    """

    embedder: str
    vectors: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Attempt:
    """A verification that counts as failed until `finish_attempt` says otherwise.

    Attributes:
        id: for the log; nothing about the person is in it.
        telegram_id: whose it is.
        level: what was asked for.
        steps: of its challenge, as `new_challenge` was given them.
        begun: when it was committed.
    """

    id: int
    telegram_id: int
    level: Level
    steps: str
    begun: datetime


@dataclass(frozen=True, slots=True)
class Finished:
    """What else came of an attempt that was finished.

    Attributes:
        reset_ended: whether a wait after which the face might be replaced was ended.
        alarm: whether there is something to tell the person; see `Store.claim_alarm`.
    """

    reset_ended: bool
    alarm: bool


class Unusable(Enum):
    """Why a clip begins no attempt, which nobody is charged for."""

    SEEN_BEFORE = auto()
    OTHER_EMBEDDER = auto()


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip that came in reply to a challenge.

    Attributes:
        file_unique_id: Telegram's name for the file.
        content: its bytes.
        patterns: of the face in some frames (`engine.types`).
        embedder: of its vectors, as of templates.
    """

    file_unique_id: str = field(repr=False)
    content: bytes = field(repr=False)
    patterns: Sequence[bytes] = field(repr=False)
    embedder: str


Known = Mapping[int, Sequence[bytes]]
"""The fingerprints of each capture, in the open, by its id."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """What is known of whoever sends a clip.

    Attributes:
        flow: theirs; None where there is none.
        language: the one that they chose, if any.
        known: the earlier captures of the person whom the flow's challenge is about.
    """

    flow: Flow | None
    language: str | None
    known: Known = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Barred:
    """Why a person may not try now.

    Attributes:
        reason: "delay" after failures in a row; "draws" after challenges by video that were not
            passed; "locked" until the recovery code or an operator; "spent" or "expired" for a
            challenge or its flow.
        until: when a delay or the wait for a draw is over; None for the others.
    """

    reason: Literal["delay", "draws", "locked", "spent", "expired"]
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Contact:
    """The other account that is told when something happens to a person's login.

    Attributes:
        id: random; buttons name it.
        telegram_id: the other account's, which is also its chat's.
        language: in which it was confirmed.
        since: when it was confirmed there.
        ends: from when on it is told nothing any more, if somebody asked for that.
    """

    id: int
    telegram_id: int
    language: str
    since: datetime
    ends: datetime | None = None


@dataclass(frozen=True, slots=True)
class Alarm:
    """What a person is to be told of attempts that they may not have made.

    Attributes:
        kind: "unanswered" for challenges by video that were not passed, "failures" where a lock
            comes near, "locked".
        failures: since the last pass.
        limit: so many lock.
    """

    kind: str
    failures: int
    limit: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """That a person was erased.

    Attributes:
        number: to quote to the operator; it is in the audit trail, and says nothing about whom.
        when: when it happened.
        counts: how many of each kind of thing were erased, by name of the kind.
        held_until: from when on the person may enroll again; None where they may at once.
        contact: which account was told of their login; none where there was none.
        left: Telegram ids of those whose contact they were.
    """

    number: str
    when: datetime
    counts: Mapping[str, int]
    held_until: datetime | None = None
    contact: Contact | None = None
    left: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Ended:
    """What was ended of a backup because it had ended since, or was under way.

    Attributes:
        erased: rows of people who were erased.
        faces: that were replaced; whoever has none now enrolls again.
        codes: recovery codes that were used or replaced.
        locks: that are in force again.
        waits: after which a face might have been replaced.
        contacts: other accounts that were told of somebody's login, and are not any more.
    """

    erased: int = 0
    faces: int = 0
    codes: int = 0
    locks: int = 0
    waits: int = 0
    contacts: int = 0


@dataclass(frozen=True, slots=True)
class Takeover:
    """That an embedder takes over from another one, or has.

    Attributes:
        due: from when on.
        left: the time until then; none where it has taken over.
        people: how many are enrolled with the other one.
    """

    due: datetime
    left: timedelta
    people: int


@dataclass(frozen=True, slots=True)
class Tidied:
    """What a round of tidying did.

    Attributes:
        counts: how many of each kind of thing were deleted, by name of the kind.
        notices: (Telegram id, date) of those to be told that their templates go on that date;
            again in every round until `mark_noticed`.
        announcements: (Telegram id, date) of those to be told that another embedder takes over from
            theirs on that date; again in every round until `mark_announced`.
        alarms: Telegram ids of those for whom there is an `Alarm`; see `Store.claim_alarm`.
    """

    counts: Mapping[str, int]
    notices: tuple[tuple[int, datetime], ...]
    announcements: tuple[tuple[int, datetime], ...]
    alarms: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Retention:
    """How long what is kept; see `Store.tidy`.

    Attributes:
        challenges_hours: challenges, from when they were drawn.
        captures_days: marks of photos and clips seen, from when they came, of who has no face here;
            of who has one they are kept.
        audit_days: entries of the audit trail; attempts, too, but not before they count no more.
        idle_days: templates that nobody uses.
        notice_days: how long before that the person is told.
        hold_hours: marks of those who were erased, who may not enroll again meanwhile.
    """

    challenges_hours: float = 24
    captures_days: float = 30
    audit_days: float = 180
    idle_days: float = 365
    notice_days: float = 30
    hold_hours: float = 24
