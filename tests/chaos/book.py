"""Who asked what, what was answered, and what each call of the bot suffered; and what is wrong.

Listens inside the sandbox, so that it knows of each answer which fault its own call met. A question
is whatever a person waits for an answer to: a message, an album, a photo put in another's place, a
pressed button. Knows how the bot's log tells of an update; nothing about how faults are made.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from bot.sandbox import Fault, FaultKind, Sandbox
from bot.texts import LANGUAGES, say

HANDLED = re.compile(r"\bupdate=(\d+) .*?\boutcome=(\w+)")
_NOT_REMEMBERED = re.compile(r"\bupdate=(\d+) could not be remembered")
_FLOOD = {"one_at_a_time", "backlog"}
_FLOOD_WORDS = {say(language, f"turned.{key}") for language in LANGUAGES for key in _FLOOD}
_PARTIAL = re.compile(r"answered_\d+_of_\d+")
_TOO_LATE = "a button was answered too late"
_CUTS = {
    FaultKind.SERVER_ERROR,
    FaultKind.RESET,
    FaultKind.LOST_ANSWER,
    FaultKind.SLOW,
}
_suffered: ContextVar[Fault | None] = ContextVar("suffered", default=None)

Key = tuple[int, str]
"""A chat, and the message, album or query that is asked with."""


@dataclass(frozen=True, slots=True)
class Update:
    """What the bot is told.

    Attributes:
        number: Telegram's.
        at_s: when it came about.
        key: the question that it is part of.
        kind: "message", "edited_message" or "callback_query".
        asks: whether it is to be answered.
        message_id: of the message; 0 for a button.
    """

    number: int
    at_s: float
    key: Key
    kind: str
    asks: bool
    message_id: int


@dataclass(frozen=True, slots=True)
class Said:
    """A message of the bot, or a button's answer.

    Attributes:
        at_s: when it appeared.
        chat: whose.
        text: or caption.
        unit: what belongs together: one message, or all of an album.
        card: whether it is a picture.
        suffered: what its call met.
    """

    at_s: float
    chat: int
    text: str
    unit: str
    card: bool
    suffered: Fault | None


@dataclass(frozen=True, slots=True)
class Suffered:
    """A fault that a call met."""

    at_s: float
    process: int
    method: str
    fault: Fault


@dataclass(slots=True)
class Line:
    """A record of the bot's log, with its traceback.

    Attributes:
        at_s: when it was written, by the clock of the run.
        process: number of the process.
        text: all of its lines.
    """

    at_s: float
    process: int
    text: str


@dataclass(slots=True)
class Life:
    """One process of the bot.

    Attributes:
        number: 1 and up.
        began_s: when it was started.
        ended_s: when it was gone; None as long as it runs.
        ending: "kill", "stop", or the exit code of one that ended by itself.
        last_words: of one that ended by itself.
    """

    number: int
    began_s: float
    ended_s: float | None = None
    ending: str = ""
    last_words: str = ""


@dataclass
class Verdict:
    """What a run came to.

    Attributes:
        violations: one sentence each.
        unanswered: how many questions have no answer of their own, by why.
        twice: how many answers came again, by why.
    """

    violations: list[str] = field(default_factory=list)
    unanswered: Counter[str] = field(default_factory=Counter)
    twice: Counter[str] = field(default_factory=Counter)


class Book:
    """Everything that happened between people and bot.

    Args:
        sandbox: entered, before anybody writes.
        now: seconds of the run.
        process: number of the bot's process that runs, or ran last.
    """

    def __init__(
        self, sandbox: Sandbox, now: Callable[[], float], process: Callable[[], int]
    ) -> None:
        self._now = now
        self._process = process
        self.updates: dict[int, Update] = {}
        self.handed: dict[int, list[tuple[float, int]]] = defaultdict(list)
        self.said: dict[Key, list[Said]] = defaultdict(list)
        self.unasked: list[Said] = []
        self.suffered: list[Suffered] = []
        self.outcomes: dict[int, list[tuple[float, int, str]]] = defaultdict(list)
        self.forgotten: set[int] = set()
        self.lines: list[Line] = []
        self.lives: list[Life] = []
        self._albums: dict[tuple[int, int], str] = {}
        self.world = sandbox._world
        self._listen()

    # Listening

    def _listen(self) -> None:
        inbox, faults = self.world.inbox, self.world.faults
        push, poll, deliver, take = inbox.push, inbox.poll, inbox._deliver, faults.take

        def pushed(kind: str, body: dict[str, Any]) -> None:
            number = inbox._next_id
            push(kind, body)
            if inbox._next_id > number:
                self._asked(number, kind, body)

        async def polled(**arguments: Any) -> list[dict[str, Any]]:
            batch = await poll(**arguments)
            for update in batch:
                self.handed[update["update_id"]].append((self._now(), self._process()))
            return batch

        async def delivered(http: Any, webhook: Any, update: Any) -> None:
            self.handed[update.update_id].append((self._now(), self._process()))
            await deliver(http, webhook, update)

        def taken(method: str) -> Fault | None:
            fault = take(method)
            _suffered.set(fault)
            if fault is not None:
                self.suffered.append(Suffered(self._now(), self._process(), method.lower(), fault))
            return fault

        inbox.push, inbox.poll, inbox._deliver = pushed, polled, delivered  # type: ignore[method-assign]
        faults.take = taken  # type: ignore[method-assign]
        for account in self.world.accounts.values():
            self._follow(account)

    def _follow(self, account: Any) -> None:
        publish = account.events.publish

        def published(kind: str, body: dict[str, Any]) -> None:
            publish(kind, body)
            if kind == "message" and body["message"]["from"]["is_bot"]:
                self._answered(account.user_id, body["message"])
            elif kind == "answer":
                said = Said(
                    self._now(),
                    account.user_id,
                    body["text"],
                    f"query {body['query_id']}",
                    False,
                    _suffered.get(),
                )
                self.said[account.user_id, f"query {body['query_id']}"].append(said)

        account.events.publish = published

    def _asked(self, number: int, kind: str, body: dict[str, Any]) -> None:
        if kind == "callback_query":
            key, message_id, asks = f"query {body['id']}", 0, True
            chat = body["from"]["id"]
        else:
            chat, message_id = body["chat"]["id"], body["message_id"]
            group = body.get("media_group_id")
            key = f"album {group}" if group else f"message {message_id}"
            asks = kind == "message" or "photo" in body
            if group:
                self._albums[chat, message_id] = key
            if group and kind == "edited_message":
                key = f"message {message_id}"
        self.updates[number] = Update(number, self._now(), (chat, key), kind, asks, message_id)

    def _answered(self, chat: int, message: Mapping[str, Any]) -> None:
        said = Said(
            self._now(),
            chat,
            message.get("text", message.get("caption", "")),
            f"album {message['media_group_id']}"
            if "media_group_id" in message
            else f"message {message['message_id']}",
            "photo" in message,
            _suffered.get(),
        )
        reply_to = message.get("reply_to_message", {}).get("message_id")
        if reply_to is None:
            self.unasked.append(said)
            return
        key = self._albums.get((chat, reply_to), f"message {reply_to}")
        self.said[chat, key].append(said)

    def log(self, line: Line) -> None:
        """Take in a new record of the bot's log; further lines are added to it."""
        self.lines.append(line)
        if match := HANDLED.search(line.text):
            self.outcomes[int(match[1])].append((line.at_s, line.process, match[2]))
        elif match := _NOT_REMEMBERED.search(line.text):
            self.forgotten.add(int(match[1]))

    # Judging

    def waiting(self) -> list[Update]:
        """Updates of which neither an outcome is known nor why there is none."""
        return [
            update
            for number, update in self.updates.items()
            if number not in self.outcomes and not self._lost(update)
        ]

    def _lost(self, update: Update) -> str | None:
        """Why the bot's log does not tell what became of an update; None where it should."""
        handed = self.handed.get(update.number, [])
        if any(self._killed_with(at_s, process) for at_s, process in handed):
            return "in hand at a SIGKILL"
        aged_s = self._now() - update.at_s
        if update.kind == "callback_query" and aged_s > 150:
            return "older than Telegram keeps a button's update"
        return None

    def _killed_with(self, at_s: float, process: int) -> bool:
        life = next((life for life in self.lives if life.number == process), None)
        return (
            life is not None
            and life.ending == "kill"
            and life.ended_s is not None
            and at_s <= life.ended_s + 0.5
        )

    def judge(self, album_s: float) -> Verdict:
        """What is wrong, and what is excused by why.

        Args:
            album_s: for how long the bot waits for another message of an album.
        """
        verdict = Verdict()
        questions: dict[Key, list[Update]] = defaultdict(list)
        for update in self.updates.values():
            questions[update.key].append(update)
        for key, updates in questions.items():
            album = key[1].startswith("album")
            asked = sum(update.asks for update in updates)
            expected = min(1, asked) if album else asked
            came = self._units(self.said.get(key, ()), album, updates)
            if came < expected:
                self._missing(verdict, updates)
            elif came > expected:
                self._again(verdict, key, updates, came - expected, album_s)
        for key, said in self.said.items():
            if key not in questions:
                verdict.violations.append(f"an answer to nothing that was asked: {key} {said}")
        verdict.violations += [f"nobody asked for this: {said}" for said in self.unasked]
        return verdict

    def _units(self, said: Iterable[Said], album: bool, updates: Iterable[Update]) -> int:
        """How many answers there are; an album's cards and words about its other photos are one."""
        cards = {one.unit for one in said if one.card}
        words = {one.unit for one in said if not one.card}
        partly = album and any(
            _PARTIAL.fullmatch(outcome)
            for update in updates
            for _, _, outcome in self.outcomes.get(update.number, ())
        )
        return max(len(cards), len(words)) if partly else len(cards) + len(words)

    def _missing(self, verdict: Verdict, updates: list[Update]) -> None:
        whys = [why for update in updates if update.asks for why in self._whys(update)]
        if whys:
            verdict.unanswered[whys[0]] += 1
            return
        told = {update.number: self.outcomes.get(update.number) for update in updates}
        verdict.violations.append(
            f"no answer: {updates[0].kind} {updates[0].key} at {updates[0].at_s:.1f} s; "
            f"outcomes {told}, handed {[self.handed.get(update.number) for update in updates]}"
        )

    def _whys(self, update: Update) -> Iterator[str]:
        """Why an update has no answer of its own, where that is right."""
        found = self.outcomes.get(update.number, [])
        if not found:
            if why := self._lost(update):
                yield why
            return
        for at_s, process, outcome in found:
            if outcome in _FLOOD and self._told_of_flood(update, at_s):
                yield "one of too many at once, and told so"
            elif outcome in _FLOOD and self._flood_word_lost(update, at_s):
                yield "one of too many at once, and Telegram took no word of it"
            if outcome.endswith("_unsent") and (why := self._cut(update, at_s)):
                yield why
            if update.kind == "callback_query":
                late = (
                    line
                    for line in self.lines
                    if line.process == process
                    and update.at_s <= line.at_s <= at_s + 1
                    and _TOO_LATE in line.text
                )
                if next(late, None):
                    yield "a button that was answered too late"
                elif why := self._cut(update, at_s):
                    yield why
        # What was handed to a process that was killed may have been known to it as served.
        if all(outcome == "duplicate" for _, _, outcome in found) and (why := self._lost(update)):
            yield why

    def _told_of_flood(self, update: Update, at_s: float) -> bool:
        return any(
            said.text in _FLOOD_WORDS and abs(said.at_s - at_s) < 150
            for (chat, _), answers in self.said.items()
            if chat == update.key[0]
            for said in answers
        )

    def _flood_word_lost(self, update: Update, at_s: float) -> bool:
        """Whether the bot tried to tell it, and Telegram took nothing for so long."""
        return any(
            outcome in {f"{each}_unsent" for each in _FLOOD} and abs(other_s - at_s) < 150
            for number, found in self.outcomes.items()
            if self.updates[number].key[0] == update.key[0]
            for other_s, _, outcome in found
            if self._cut(self.updates[number], other_s)
        )

    def _cut(self, update: Update, until_s: float) -> str | None:
        """Why nothing could be said: Telegram took no call then."""
        for each in self.suffered:
            fault = each.fault
            if each.at_s > until_s or each.method == "getupdates":
                continue
            if fault.kind is FaultKind.TOO_MANY_REQUESTS:
                if each.at_s + fault.retry_after_s >= update.at_s:
                    return "Telegram took no message for longer than an answer may take"
            elif fault.kind in _CUTS and each.at_s >= update.at_s:
                return "every call was cut until the answer's time was over"
        return None

    def _again(
        self, verdict: Verdict, key: Key, updates: list[Update], excess: int, album_s: float
    ) -> None:
        said = self.said[key]
        cut = [one for one in said if one.suffered and one.suffered.kind in _CUTS]
        why = None
        if len({one.unit for one in cut}) >= excess:
            kinds = sorted({one.suffered.kind.value for one in cut if one.suffered})
            why = f"its call was carried out and its answer cut ({', '.join(kinds)})"
        elif any(self._handed_after_kill(update) for update in updates):
            why = "unacknowledged at a SIGKILL"
        elif any(update.number in self.forgotten for update in updates):
            why = "the database could not remember it before the bot ended"
        elif key[1].startswith("album") and self._split(updates, album_s):
            why = "an album whose parts came apart"
        if why:
            verdict.twice[why] += excess
            return
        verdict.violations.append(
            f"answered {excess} time(s) too often: {key}; said {said}; outcomes "
            f"{[(update.number, self.outcomes.get(update.number)) for update in updates]}; handed "
            f"{[self.handed.get(update.number) for update in updates]}"
        )

    def _handed_after_kill(self, update: Update) -> bool:
        handed = self.handed.get(update.number, [])
        killed = [process for at_s, process in handed if self._killed_with(at_s, process)]
        return any(process > min(killed) for _, process in handed) if killed else False

    def _split(self, updates: Iterable[Update], album_s: float) -> bool:
        """Whether an album's messages reached the bot further apart than it waits, or two bots."""
        first = sorted(self.handed[one.number][0] for one in updates if one.number in self.handed)
        last = {self.handed[one.number][-1][1] for one in updates if one.number in self.handed}
        gaps = [later[0] - earlier[0] for earlier, later in pairwise(first)]
        return len(last | {process for _, process in first}) > 1 or max(gaps, default=0) >= (
            0.9 * album_s
        )
