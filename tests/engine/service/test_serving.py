"""What lives as long as the service is not looked through again and again; what is gone goes."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from engine.service.serving import open_engine
from engine.settings import Settings
from tests.engine.seers import Seer


class Cyclic(Seer):
    """Only the collector can take it away."""

    def __init__(self) -> None:
        super().__init__()
        self.itself = self


@pytest.fixture(autouse=True)
def unfrozen() -> Iterator[None]:
    yield
    gc.unfreeze()


async def test_the_collector_passes_over_what_stays_and_a_reload_leaves_nothing_behind() -> None:
    made: list[weakref.ref[Cyclic]] = []

    def build(_settings: Settings) -> Cyclic:
        seer = Cyclic()
        made.append(weakref.ref(seer))
        return seer

    async with open_engine(Settings(engine_device="cpu", engine_watch_s=0), build) as served:
        assert gc.get_freeze_count() > 10_000
        await served.reloader.reload()
        await served.reloader.reload()
        assert [seer() is not None for seer in made] == [False, False, True]
