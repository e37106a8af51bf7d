"""Whatever two people do in whatever order.

Nobody passes without a live challenge, nobody as somebody else, and nothing is left of who was
forgotten. Through real HTTP and a real database.
"""

import asyncio
import base64
import tempfile
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from bot.sandbox import Fault, FaultKind, Sandbox
from bot.sandbox.client import Message
from bot.texts import say
from tests.bot.logins import (
    PHOTOS,
    LoginEngine,
    Shots,
    english,
    enroll,
    login_bot,
    vector,
)
from tests.bot.store.places import Place

PASSED, FAILED = say("en", "verify.passed_photo"), say("en", "verify.failed_photo")
NAMES, FACES = ("ana", "ben"), (0, 1)
PATIENCE = 4
"""Failures in a row before there are delays."""


class Logins(RuleBasedStateMachine):
    """Two people, two faces, one database; `owner` is the face that each enrolled with."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.running = AsyncExitStack()
        self.owner: dict[str, int | None] = dict.fromkeys(NAMES)
        self.failures = dict.fromkeys(NAMES, 0)
        self.held = dict.fromkeys(NAMES, False)
        self.old: list[tuple[str, Message]] = []

    @initialize()
    def begin(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.stack.callback(folder.cleanup)
        self.folder = Path(folder.name)
        self.engine, self.shots = LoginEngine(), Shots()

        async def start() -> None:
            self.sandbox = await self.stack.enter_async_context(Sandbox())
            await self._start_bot()
            self.people = {name: await english(self.sandbox, name) for name in NAMES}

        self._do(start())

    def teardown(self) -> None:
        async def stop() -> None:
            await self.running.aclose()
            await self.stack.aclose()

        self._do(stop())
        self.runner.close()

    # What people do

    @rule(name=st.sampled_from(NAMES), face=st.sampled_from(FACES))
    def enrolls(self, name: str, face: int) -> None:
        self.engine.person = face
        self._do(self._enroll(name, face))

    @rule(name=st.sampled_from(NAMES), face=st.sampled_from(FACES))
    def verifies(self, name: str, face: int) -> None:
        self.engine.person = face
        self._do(self._verify(name, face))

    @rule(name=st.sampled_from(NAMES))
    def forgets(self, name: str) -> None:
        self._do(self._forget(name))

    @rule(name=st.sampled_from(NAMES))
    def leaves_a_challenge_alone(self, name: str) -> None:
        if self.owner[name] is not None:
            self._do(self._challenge(name))

    @precondition(lambda self: self.old)
    @rule(data=st.data())
    def answers_an_old_challenge(self, data: st.DataObject) -> None:
        name, asked = data.draw(st.sampled_from(self.old))
        self.engine.person = self.owner[name] or 0
        self._do(self._answer_too_late(name, asked))

    @rule(name=st.sampled_from(NAMES))
    def answers_from_two_devices_at_once(self, name: str) -> None:
        if self.owner[name] is not None:
            self.engine.person = self.owner[name] or 0
            self._do(self._two_devices(name))

    @rule()
    def the_bot_is_restarted(self) -> None:
        async def restart() -> None:
            await self.running.aclose()
            await self._start_bot()

        self._do(restart())

    @rule(name=st.sampled_from(NAMES), face=st.sampled_from(FACES))
    def an_update_comes_twice(self, name: str, face: int) -> None:
        self.sandbox.faults.add(Fault(FaultKind.DUPLICATE_UPDATE, count=1))
        self.engine.person = face
        self._do(self._verify(name, face))

    # How

    async def _start_bot(self) -> None:
        self.running = AsyncExitStack()
        await self.running.enter_async_context(login_bot(self.folder, self.engine, self.sandbox))

    async def _enroll(self, name: str, face: int) -> None:
        person = self.people[name]
        if self.held[name]:
            await person.send_text("/enroll")
            before, _ = say("en", "enroll.held", when="\0").split("\0")
            assert (await person.reply()).text.startswith(before)
            place = Place(self.folder, self.folder / "bot.db")
            await place.sql("UPDATE holds SET until = 0")  # as though a day had gone by
            self.held = dict.fromkeys(NAMES, False)
        elif self.owner[name] is None:
            await enroll(person, self.shots)
            self.owner[name], self.failures[name] = face, 0
        else:
            await person.send_text("/enroll")
            assert (await person.reply()).text == say("en", "enroll.already", hours=24)

    async def _challenge(self, name: str) -> Message:
        person = self.people[name]
        await person.send_text("/verify photo")
        asked = await person.reply()
        assert asked.asks_reply
        self.old.append((name, asked))
        return asked

    async def _verify(self, name: str, face: int) -> None:
        person, right = self.people[name], self.owner[name] == face
        if self.owner[name] is None:
            await person.send_text("/verify photo")
            assert (await person.reply()).text == say("en", "verify.not_enrolled")
            return
        if not right and self.failures[name] >= PATIENCE:
            return
        asked = await self._challenge(name)
        for _ in range(PHOTOS - 1):
            await person.send_photo(self.shots.new(), reply_to=asked)
            asked = await person.reply()
            self.old.append((name, asked))
        await person.send_photo(self.shots.new(), reply_to=asked)
        assert (await person.reply()).text == (PASSED if right else FAILED)
        self.failures[name] = 0 if right else self.failures[name] + 1

    async def _answer_too_late(self, name: str, asked: Message) -> None:
        """The newest challenge may be live still; every older one is not."""
        person = self.people[name]
        await person.send_text("/cancel")
        await person.reply()
        await person.send_photo(self.shots.new(), reply_to=asked)
        assert (await person.reply()).text not in (PASSED, FAILED)

    async def _two_devices(self, name: str) -> None:
        person = self.people[name]
        asked = await self._challenge(name)
        for _ in range(PHOTOS - 1):
            await person.send_photo(self.shots.new(), reply_to=asked)
            asked = await person.reply()
        photos = [self.shots.new() for _ in range(2)]
        other = self.sandbox.person(name)
        await asyncio.gather(
            person.send_photo(photos[0], reply_to=asked),
            other.send_photo(photos[1], reply_to=asked),
        )
        said = [(await person.reply()).text for _ in photos]
        assert said.count(PASSED) == 1
        self.failures[name] = 0

    async def _forget(self, name: str) -> None:
        person = self.people[name]
        face = self.owner[name]
        await person.send_text("/forget")
        asked = await person.reply()
        await person.press(asked, say("en", "buttons.forget_yes"))
        await person.edited(asked)
        self.owner[name], self.failures[name] = None, 0
        self.held[name] |= face is not None
        telegram_id = str(asked.raw["chat"]["id"]).encode()
        self._assert_absent([telegram_id])
        if face is not None:
            raw = [vector(face, shot).tobytes() for shot in range(1, self.engine.shots + 1)]
            self._assert_absent([each[:16] for each in raw])
            self._assert_absent([base64.b64encode(each)[:20] for each in raw])

    def _assert_absent(self, canaries: list[bytes]) -> None:
        for path in self.folder.rglob("*"):
            if path.is_file():
                content = path.read_bytes()
                if path.suffix == ".tombstones":
                    # Random digits: some are those of a short id now and then.
                    content = bytes.fromhex(content.decode("ascii"))
                assert not [canary for canary in canaries if canary in content], path.name

    def _do(self, what: Coroutine[Any, Any, object]) -> None:
        self.runner.run(what)


Logins.TestCase.settings = settings(
    max_examples=6,
    stateful_step_count=8,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestLogins = Logins.TestCase
