import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from engine.client import EmbeddedEngine, Engine
from engine.errors import (
    Busy,
    ConfigurationError,
    DeadlineExceeded,
    EmptyImage,
    InternalError,
    NotAnImage,
    Unavailable,
)
from engine.image import ENOUGH_PX
from engine.settings import Settings
from engine.types import MAX_TOP_K, Analysis, Person
from tests.engine import seers
from tests.engine.seers import INFO, PATIENCE_S, PEOPLE, Seer, photo

ROOT = Path(__file__).parents[2]


@pytest.fixture(name="seer")
def a_seer() -> Seer:
    return seers.seer()


def an_engine(seer: Seer) -> Engine:
    """The type checker's word that the engine is one."""
    return EmbeddedEngine(seer)


async def test_answers(seer: Seer) -> None:
    async with an_engine(seer) as engine:
        analysis = await engine.analyze(photo(), top_k=3, embed=True, aligned=True)
        assert await engine.info() == INFO
        assert await engine.people() == PEOPLE
    assert (analysis.width_px, analysis.height_px) == (120, 80)
    assert analysis.faces[0].box == (50, 30, 70, 50)
    assert analysis.compute_s > 0
    assert analysis.queue_s >= 0
    ((request,),) = seer.seen
    assert (request.top_k, request.embed, request.aligned) == (3, True, True)
    assert request.image.mode == "RGB"
    assert seer.threads.isdisjoint({threading.current_thread().name})


async def test_a_large_photo_is_shrunk_and_its_own_size_told(seer: Seer) -> None:
    async with an_engine(seer) as engine:
        await engine.analyze(photo(2 * ENOUGH_PX, 2400, orientation=6))
    ((request,),) = seer.seen
    assert request.image.size == (1200, ENOUGH_PX)
    assert request.original_px == (2400, 2 * ENOUGH_PX)


async def test_a_bad_photo_never_reaches_the_seer(seer: Seer) -> None:
    async with an_engine(seer) as engine:
        good, text, nothing = await asyncio.gather(
            engine.analyze(photo()),
            engine.analyze(b"hello"),
            engine.analyze(b""),
            return_exceptions=True,
        )
    assert isinstance(good, Analysis)
    assert isinstance(text, NotAnImage)
    assert isinstance(nothing, EmptyImage)
    assert sum(map(len, seer.seen)) == 1


@pytest.mark.parametrize("top_k", [0, MAX_TOP_K + 1])
async def test_nobody_and_too_many_to_name_are_mistakes_of_the_caller(
    seer: Seer, top_k: int
) -> None:
    async with an_engine(seer) as engine:
        with pytest.raises(ValueError, match="top_k"):
            await engine.analyze(photo(), top_k=top_k)


async def test_a_full_queue_is_busy_and_a_late_answer_is_none(seer: Seer) -> None:
    seer.go_on.clear()
    async with EmbeddedEngine(seer, queue_size=1, max_batch=1) as engine:
        first = asyncio.create_task(engine.analyze(photo()))
        assert await asyncio.to_thread(seer.begun.wait, PATIENCE_S)
        with pytest.raises(DeadlineExceeded):
            await engine.analyze(photo(), timeout_s=0.001)
        second = asyncio.create_task(engine.analyze(photo()))
        await asyncio.sleep(0)
        with pytest.raises(Busy) as caught:
            await engine.analyze(photo())
        assert caught.value.retry_after_s > 0
        seer.go_on.set()
        await asyncio.gather(first, second)


async def test_a_bug_in_the_seer_is_an_internal_error(seer: Seer) -> None:
    seer.fault = KeyError("oops")
    async with an_engine(seer) as engine:
        with pytest.raises(InternalError):
            await engine.analyze(photo())
        seer.fault = None
        assert (await engine.analyze(photo())).faces


async def test_a_closed_engine_is_unavailable(seer: Seer) -> None:
    async with an_engine(seer) as engine:
        pass
    with pytest.raises(Unavailable):
        await engine.analyze(photo())


async def test_another_seer_takes_over_between_two_batches(seer: Seer) -> None:
    seer.go_on.clear()
    known = (Person("Carla", "CL"),)
    successor = seers.seer("tests@1", known)
    async with EmbeddedEngine(seer, max_batch=1) as engine:
        first = asyncio.create_task(engine.analyze(photo()))
        assert await asyncio.to_thread(seer.begun.wait, PATIENCE_S)
        engine.swap(successor)
        second = asyncio.create_task(engine.analyze(photo()))
        seer.go_on.set()
        assert (await first).bundle == "tests@0"
        assert (await second).bundle == "tests@1"
        assert (await engine.info()).bundle == "tests@1"
        assert await engine.people() == known


async def test_opening_fails_with_the_operators_mistake(tmp_path: Path) -> None:
    settings = Settings(engine_bundle=str(tmp_path / "nothing"), engine_device="cpu")
    with pytest.raises(ConfigurationError):
        await EmbeddedEngine.open(settings)


def test_importing_it_loads_no_torch() -> None:
    code = "import sys, engine.client; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
