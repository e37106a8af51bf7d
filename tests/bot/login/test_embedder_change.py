"""The bundle of the bot's own engine, by whom the database has enrolled; small bundles, no weights.

What sees faces is a stand-in that tells which bundle it was built from.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from bot import storing
from bot.login import embedder_change
from bot.login.captures import embedder_id
from bot.settings import Settings
from bot.store import Store, add_key
from bot.texts import moment
from engine import bundle
from engine import settings as engine_settings
from engine.client import Engine
from engine.default_bundle import ALWAYS_THERE, MORE_ACCURATE, Choice, choose
from engine.errors import BundleError
from engine.request import PhotoRequest
from engine.settings import Settings as EngineSettings
from engine.types import Analysis, EngineInfo, Person
from engine.vision.embed import mobilefacenet
from engine.vision.weights import WeightsFile
from tests.bot.fakes import _tables
from tests.bot.logins import CALIBRATION
from tests.bot.store.places import ANA, BEN, Place, enroll, enrolment
from tests.engine import mobilefacenets
from tests.engine.test_default_bundle import gallery

USUAL = bundle.load(ALWAYS_THERE).embedder
OLD = embedder_id(USUAL.id, USUAL.weights_sha256, bundle.PREPROCESSING)
NEW = embedder_id(mobilefacenet.ID, mobilefacenet.WEIGHTS.sha256, bundle.PREPROCESSING)


class Sees:
    """Sees nothing; knows which bundle it was built from."""

    at_once = 1

    def __init__(self, settings: EngineSettings) -> None:
        self._bundle = bundle.load(settings.engine_bundle)

    def analyze(self, requests: Sequence[PhotoRequest]) -> Sequence[Analysis]:
        raise NotImplementedError

    def info(self) -> EngineInfo:
        return EngineInfo("0", self._bundle.name, self._bundle.embedder.id, 2, "cpu")

    def people(self) -> tuple[Person, ...]:
        return ()


@dataclass
class Home:
    """Both bundles, a bot's files, and what "auto" chooses between."""

    folder: Path
    weights: WeightsFile

    def settings(self, **changes: Any) -> Settings:
        return Settings(
            bot_token="1:x",  # type: ignore[arg-type]
            database=self.folder / "bot.db",
            ids_key=self.folder / "ids.key",
            template_keys_file=self.folder / "template.keys",
            **changes,
        )

    def own(self, name: str = engine_settings.AUTO) -> EngineSettings:
        return EngineSettings(face_weights_dir=self.folder / "weights", engine_bundle=name)

    def fetch(self) -> None:
        mobilefacenets.put(self.folder / "weights", mobilefacenets.small())

    def choose(self, own: EngineSettings) -> Choice:
        return choose(own, folder=self.folder / "models", weights_file=self.weights)

    def store(self) -> Store:
        return storing.store(self.settings())

    async def enroll(self, person: int = ANA, embedder: str = OLD) -> None:
        async with self.store() as store:
            await enroll(store, person, replace(enrolment(), embedder=embedder))

    def engine(
        self, own: EngineSettings | None = None, *, notice_days: float = 14, **ways: Any
    ) -> AbstractAsyncContextManager[Engine]:
        return embedder_change.embedded(
            self.settings(embedder_notice_days=notice_days),
            own or self.own(),
            **{"build": Sees, "choose": self.choose, **ways},
        )


@pytest.fixture
def home(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Home:
    gallery(tmp_path / "models" / ALWAYS_THERE, USUAL.id, USUAL.weights_sha256, USUAL.dimension)
    better = mobilefacenet.WEIGHTS.sha256
    gallery(tmp_path / "models" / MORE_ACCURATE, mobilefacenet.ID, better, 512)
    add_key(tmp_path / "template.keys")
    (tmp_path / "bot.db").write_bytes(_tables())
    caplog.set_level(logging.INFO, "bot.login.embedder_change")
    elsewhere = mobilefacenets.put(tmp_path / "elsewhere", mobilefacenets.small())
    return Home(tmp_path, elsewhere)


async def used(engine: AbstractAsyncContextManager[Engine]) -> str:
    async with engine as opened:
        return (await opened.info()).bundle


async def until(engine: Engine, name: str) -> None:
    """Wait until the engine has a bundle."""
    async with asyncio.timeout(60):
        while (await engine.info()).bundle != name:  # noqa: ASYNC110 (a swap wakes nobody)
            await asyncio.sleep(0)


def told(caplog: pytest.LogCaptureFixture, level: str = "INFO") -> str:
    """The only line of a level."""
    lines = [record.getMessage() for record in caplog.records if record.levelname == level]
    assert len(lines) == 1, lines
    return lines[0]


async def test_without_the_weights_nothing_changes(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    await home.enroll()
    assert await used(home.engine()) == ALWAYS_THERE
    assert "training fetch mobilefacenet" in told(caplog)
    async with home.store() as store:
        assert (await store.tidy()).announcements == ()


async def test_where_nobody_is_enrolled_the_better_one_is_used_at_once(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    home.fetch()
    assert await used(home.engine()) == MORE_ACCURATE
    assert told(caplog).startswith(f"bundle {MORE_ACCURATE}: ")
    assert "0 people" in told(caplog)


async def test_whoever_is_enrolled_is_told_before_they_are_locked_out(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    await home.enroll()
    await home.enroll(BEN)
    home.fetch()
    assert await used(home.engine()) == ALWAYS_THERE
    async with home.store() as store:
        ((_, due), _) = (await store.tidy()).announcements
    line = told(caplog)
    assert line.startswith(f"bundle {ALWAYS_THERE}: 2 people are enrolled with its embedder")
    assert f"{MORE_ACCURATE}, which is more accurate, takes over on {moment(due)}" in line


async def test_when_the_date_is_past_the_next_start_uses_the_better_one(tmp_path: Path) -> None:
    place = Place(tmp_path, tmp_path / "bot.db")
    found = embedder_change.Found(
        embedder_change.UsableBundle(Path("better"), NEW),
        embedder_change.UsableBundle(Path("usual"), OLD),
        "it is here",
    )
    async with place.store() as store:
        await enroll(store, given=replace(enrolment(), embedder=OLD))
        first = await embedder_change.decide(store, found, 14)
        assert first.stem == Path("usual")
        place.clock.advance(days=13)
        assert (await embedder_change.decide(store, found, 14)).stem == Path("usual")
        place.clock.advance(days=1)
        after = await embedder_change.decide(store, found, 14)
        assert (after.stem, bool(after.left)) == (Path("better"), False)
        assert "1 people are enrolled with the embedder of usual" in after.told
        assert moment(place.clock.now) in after.told


async def test_no_notice_takes_over_at_once(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    await home.enroll()
    home.fetch()
    assert await used(home.engine(notice_days=0)) == MORE_ACCURATE
    assert told(caplog, "WARNING") == (
        f"1 people are enrolled with another embedder than that of bundle {MORE_ACCURATE}: they "
        "cannot /verify until they enroll again"
    )


async def test_replicas_that_start_together_use_the_same_one(home: Home) -> None:
    await home.enroll()
    home.fetch()
    names = await asyncio.gather(*(used(home.engine(notice_days=days)) for days in (7, 14)))
    assert names == [ALWAYS_THERE] * 2
    async with home.store() as store:
        ((_, due),) = (await store.tidy()).announcements
        again = await store.plan_takeover(NEW, OLD, notice_days=1)
    assert again.due == due


@pytest.mark.parametrize("name", [ALWAYS_THERE, MORE_ACCURATE])
async def test_a_bundle_that_the_operator_names_is_used_with_a_warning(
    home: Home, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    await home.enroll(ANA)
    await home.enroll(BEN, NEW)
    home.fetch()
    assert await used(home.engine()) == ALWAYS_THERE
    caplog.clear()
    named = home.own(str(home.folder / "models" / name))
    assert await used(home.engine(named)) == name
    assert f"1 people are enrolled with another embedder than that of bundle {name}" in told(
        caplog, "WARNING"
    )
    # Nobody is told of a date that does not come, then or later.
    async with home.store() as store:
        assert (await store.tidy()).announcements == ()
        assert not await store.withdraw_takeover()


class Pauses:
    """Pauses of the bot: each is told with its seconds, and lasts until it may go on."""

    def __init__(self) -> None:
        self.begun: asyncio.Queue[float] = asyncio.Queue()
        self.go_on: asyncio.Queue[None] = asyncio.Queue()

    async def __call__(self, seconds: float) -> None:
        self.begun.put_nowait(seconds)
        await self.go_on.get()


async def test_a_running_bot_changes_when_the_date_has_come(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    await home.enroll()
    home.fetch()
    pauses = Pauses()

    async with home.engine(notice_days=0.5 / 24, pause=pauses) as engine:
        assert 1790 < await pauses.begun.get() <= 1800, "to the date"
        pauses.go_on.put_nowait(None)  # too early
        assert await pauses.begun.get() <= 1800
        assert (await engine.info()).bundle == ALWAYS_THERE
        async with home.store() as store:
            await store.plan_takeover(NEW, OLD, notice_days=0)
        pauses.go_on.put_nowait(None)
        await until(engine, MORE_ACCURATE)
    lines = [record.getMessage() for record in caplog.records]
    assert "it took over on" in lines[-1]


async def test_a_bundle_that_cannot_be_built_leaves_the_old_one_and_is_tried_again(
    home: Home,
) -> None:
    await home.enroll()
    home.fetch()
    pauses = Pauses()
    broken = [True]

    def build(settings: EngineSettings) -> Sees:
        if broken[0] and MORE_ACCURATE in settings.engine_bundle:
            raise BundleError("it answers nonsense")
        return Sees(settings)

    async with home.engine(pause=pauses, build=build) as engine:
        assert await pauses.begun.get() == embedder_change.LOOK_AGAIN_S
        async with home.store() as store:
            await store.plan_takeover(NEW, OLD, notice_days=0)
        pauses.go_on.put_nowait(None)
        assert await pauses.begun.get() == embedder_change.LOOK_AGAIN_S
        assert (await engine.info()).bundle == ALWAYS_THERE
        broken[0] = False
        pauses.go_on.put_nowait(None)
        await until(engine, MORE_ACCURATE)


async def test_a_fault_of_one_look_does_not_end_the_wait_for_the_date(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    await home.enroll()
    home.fetch()
    pauses = Pauses()
    broken = [False]

    def chooses(own: EngineSettings) -> Choice:
        if broken[0]:
            raise ArithmeticError("a bug")
        return home.choose(own)

    async with asyncio.timeout(60), home.engine(pause=pauses, choose=chooses) as engine:
        assert await pauses.begun.get() == embedder_change.LOOK_AGAIN_S
        async with home.store() as store:
            await store.plan_takeover(NEW, OLD, notice_days=0)
        broken[0] = True
        pauses.go_on.put_nowait(None)
        assert await pauses.begun.get() < embedder_change.LOOK_AGAIN_S
        assert "ArithmeticError: a bug" in caplog.text
        broken[0] = False
        pauses.go_on.put_nowait(None)
        await until(engine, MORE_ACCURATE)


async def test_a_usual_bundle_that_was_taken_away_is_no_choice(home: Home) -> None:
    await home.enroll()
    home.fetch()
    (home.folder / "models" / f"{ALWAYS_THERE}.json").unlink()
    assert await used(home.engine()) == MORE_ACCURATE


async def test_without_a_login_the_database_is_not_asked(home: Home) -> None:
    (home.folder / "template.keys").unlink()
    settings = home.settings(face_login=False)
    own = home.own(str(home.folder / "models" / MORE_ACCURATE))
    assert await used(embedder_change.embedded(settings, own, build=Sees)) == MORE_ACCURATE


async def test_an_engine_elsewhere_chooses_itself_and_the_bot_warns(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    await home.enroll()
    async with home.store() as store:
        await store.plan_takeover(NEW, OLD, notice_days=14)
    info = EngineInfo("0", "family@0", CALIBRATION.embedder, 2, "cpu", login=CALIBRATION)
    await embedder_change.greet(home.settings(), info)
    assert "1 people are enrolled with another embedder than that of bundle family@0" in told(
        caplog, "WARNING"
    )
    async with home.store() as store:
        assert not await store.withdraw_takeover()
    caplog.clear()
    login = replace(
        CALIBRATION, embedder=USUAL.id, weights_sha256=USUAL.weights_sha256, preprocessing=1
    )
    await embedder_change.greet(home.settings(), replace(info, login=login))
    assert not caplog.records
