"""Any order of events: nobody passes without a live challenge, nothing is left of the erased."""

import asyncio
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from bot.store import Attempt, Barred, Flow, FlowKind, Store, StoreError
from tests.bot.store.places import Place, enrolment, vectors

PEOPLE = st.sampled_from([7_000_000_001, 7_000_000_002])
DEVICES = st.sampled_from([0, 1])
LIFETIME_S = 60
LOCKED = Barred("locked")


@dataclass
class Known:
    """What must be true of one person."""

    face: int | None = None
    enrolled: int = 0
    live: dict[bytes, float] = field(default_factory=dict)
    flows: list[Flow] = field(default_factory=list)
    open: list[tuple[Attempt, int]] = field(default_factory=list)
    begun: int = 0
    files: set[str] = field(default_factory=set)
    held_until: float = 0.0


class Login(RuleBasedStateMachine):
    """Two people, two replicas, one database."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory(prefix="face-matcher-")
        folder = Path(self.folder.name)
        self.place = Place(folder, folder / "bot.db")
        self.people: dict[int, Known] = {}
        self.stores: list[Store] = []
        self.spent: list[tuple[int, bytes]] = []
        self.files: set[str] = set()

    def teardown(self) -> None:
        for store in self.stores:
            self.runner.run(store.__aexit__())
        self.runner.close()
        self.folder.cleanup()

    @initialize()
    def start(self) -> None:
        self.stores = [self.place.store(), self.place.store()]
        for store in self.stores:
            self.runner.run(store.__aenter__())

    def known(self, person: int) -> Known:
        return self.people.setdefault(person, Known())

    def now(self) -> float:
        return self.place.clock.now.timestamp()

    @rule(device=DEVICES)
    def restart(self, device: int) -> None:
        self.runner.run(self.stores[device].__aexit__())
        self.stores[device] = self.place.store()
        self.runner.run(self.stores[device].__aenter__())

    @rule(seconds=st.sampled_from([1.0, 59.0, 61.0, 7200.0, 86_400.0]))
    def wait(self, seconds: float) -> None:
        self.place.clock.advance(seconds=seconds)

    @rule(person=PEOPLE, device=DEVICES, face=st.integers(0, 5))
    def enroll(self, person: int, device: int, face: int) -> None:
        store, known = self.stores[device], self.known(person)

        async def verb() -> bool:
            flow = await store.begin_flow(person, FlowKind.ENROLL, {}, lifetime_s=LIFETIME_S)
            return await store.enroll(flow, enrolment(vectors(1, 8, seed=face)))

        held = known.face is None and self.now() < known.held_until
        locked = known.face is not None and self.runner.run(store.barred(person)) == LOCKED
        assert self.runner.run(verb()) == (not held and not locked)
        if held or locked:
            return
        known.face = face
        known.enrolled += 1
        self.spent += [(person, nonce) for nonce in known.live]
        known.live.clear()

    @rule(person=PEOPLE, device=DEVICES)
    def challenge(self, person: int, device: int) -> None:
        store, known = self.stores[device], self.known(person)

        async def verb() -> tuple[bytes, Flow]:
            nonce = await store.new_challenge(person, "video", "up", lifetime_s=LIFETIME_S)
            flow = await store.begin_flow(person, FlowKind.VERIFY, {}, lifetime_s=LIFETIME_S)
            return nonce, flow

        nonce, flow = self.runner.run(verb())
        known.begun += len(known.live)  # one that was let lapse is charged
        self.spent += [(person, old) for old in known.live]
        known.live = {nonce: self.now() + LIFETIME_S}
        known.flows.append(flow)

    @rule(person=PEOPLE, twice=st.booleans())
    def attempt(self, person: int, twice: bool) -> None:
        """With the newest challenge, from one device or from both at the same time."""
        known = self.known(person)
        if not known.flows or not known.live:
            return
        flow, (nonce, deadline) = known.flows[-1], next(iter(known.live.items()))

        async def verb() -> list[object]:
            stores = self.stores if twice else self.stores[:1]
            return list(
                await asyncio.gather(
                    *(store.begin_attempt(flow, "video", nonce) for store in stores)
                )
            )

        begun = [each for each in self.runner.run(verb()) if isinstance(each, Attempt)]
        assert len(begun) <= 1
        if begun:
            assert self.now() < deadline
            known.open.append((begun[0], known.enrolled))
            known.begun += 1
            del known.live[nonce]
            self.spent.append((person, nonce))

    @rule(device=DEVICES, which=st.integers(0, 10_000))
    def replay(self, device: int, which: int) -> None:
        """A challenge that is spent, of whomever, on a fresh flow."""
        if not self.spent:
            return
        person, nonce = self.spent[which % len(self.spent)]
        store = self.stores[device]

        async def verb() -> object:
            flow = await store.begin_flow(person, FlowKind.VERIFY, {}, lifetime_s=LIFETIME_S)
            return await store.begin_attempt(flow, "video", nonce)

        assert not isinstance(self.runner.run(verb()), Attempt)

    @rule(person=PEOPLE, device=DEVICES)
    def steal(self, person: int, device: int) -> None:
        """Somebody else's live challenge."""
        store = self.stores[device]
        others = [nonce for other, known in self.people.items() if other != person
                  for nonce in known.live]  # fmt: skip
        if not others:
            return

        async def verb() -> object:
            flow = await store.begin_flow(person, FlowKind.VERIFY, {}, lifetime_s=LIFETIME_S)
            return await store.begin_attempt(flow, "video", others[0])

        assert not isinstance(self.runner.run(verb()), Attempt)

    @rule(person=PEOPLE, device=DEVICES, passed=st.booleans())
    def finish(self, person: int, device: int, passed: bool) -> None:
        known = self.known(person)
        if not known.open:
            return
        attempt, enrolled = known.open.pop()
        verb = self.stores[device].finish_attempt(
            attempt, passed=passed, reason="r", version="v", bucket=0
        )
        try:
            self.runner.run(verb)
        except StoreError:
            assert passed
            assert enrolled != known.enrolled
        else:
            assert not passed or enrolled == known.enrolled

    @rule(person=PEOPLE, device=DEVICES, file=st.sampled_from("abc"))
    def capture(self, person: int, device: int, file: str) -> None:
        known = self.known(person)
        verb = self.stores[device].claim_capture(person, file, file.encode())
        taken = any(file in each.files for each in self.people.values())
        assert self.runner.run(verb) == (not taken)
        if not taken:
            known.files.add(file)

    @rule(person=PEOPLE, device=DEVICES)
    def forget(self, person: int, device: int) -> None:
        receipt = self.runner.run(self.stores[device].forget(person))
        known = self.known(person)
        held_until = receipt.held_until
        held = known.face is not None or self.now() < known.held_until
        assert (held_until is not None) == held
        self.spent += [(person, nonce) for nonce in known.live]
        stale = known.open
        self.people[person] = Known(held_until=held_until.timestamp() if held_until else 0.0)
        for attempt, _ in stale:
            try:
                verb = self.stores[device].finish_attempt(
                    attempt, passed=True, reason="r", version="v", bucket=0
                )
                self.runner.run(verb)
            except StoreError:
                continue
            raise AssertionError("somebody passed who is erased")

    @rule(device=DEVICES)
    def tidy(self, device: int) -> None:
        self.runner.run(self.stores[device].tidy())
        for person, known in self.people.items():
            for nonce, deadline in tuple(known.live.items()):
                if deadline <= self.now():
                    self.spent.append((person, nonce))
                    known.begun += 1  # one that was let lapse is charged
                    del known.live[nonce]

    @invariant()
    def everybody_is_who_they_are(self) -> None:
        for person, known in self.people.items():
            found = self.runner.run(self.stores[0].templates(person))
            if known.face is None:
                assert found is None
            else:
                assert found is not None
                assert abs(found.vectors - vectors(1, 8, seed=known.face)).max() < 1e-6
            attempts = self.runner.run(self.stores[1].export(person))["attempts"]
            assert len(attempts) == known.begun, "every attempt is counted"

    @invariant()
    def the_trail_is_whole(self) -> None:
        if self.stores:
            assert self.runner.run(self.stores[0].check_audit()) is None


Login.TestCase.settings = settings(
    max_examples=12,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestLogin = Login.TestCase
