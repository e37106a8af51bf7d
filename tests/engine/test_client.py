import asyncio
import io
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
from PIL import Image

from engine.client import EmbeddedEngine, Engine
from engine.errors import (
    Busy,
    ConfigurationError,
    DeadlineExceeded,
    EmptyImage,
    ImageTooDemanding,
    InternalError,
    NotAnImage,
    Unavailable,
)
from engine.media.decoder_pool import SLOW_FILES
from engine.media.image import ENOUGH_PX, ImageLimits
from engine.settings import Settings
from engine.types import MAX_TOP_K, Analysis, Person
from tests.engine import mutations, seers
from tests.engine.seers import INFO, PATIENCE_S, PEOPLE, Seer, after, photo, until

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


async def test_the_photo_comes_back_upright_and_small(seer: Seer) -> None:
    async with an_engine(seer) as engine:
        without = await engine.analyze(photo(200, 100))
        small = await engine.analyze(photo(200, 100, orientation=6), picture=True)
        large = await engine.analyze(photo(4000, 1000), picture=True)
    assert without.picture is None
    for analysis, size in ((small, (100, 200)), (large, (1600, 400))):
        assert analysis.picture is not None
        with Image.open(io.BytesIO(analysis.picture), formats=("JPEG",)) as picture:
            assert picture.size == size
            assert not picture.getexif()


async def test_files_that_take_long_hold_up_nobody_and_are_refused_in_the_end(seer: Seer) -> None:
    slow = mutations.slow()
    async with EmbeddedEngine(seer, limits=ImageLimits(cpu_s=0.5)) as engine:
        await engine.start_decoders()
        hostile = [asyncio.create_task(engine.analyze(slow)) for _ in range(4)]
        answered = 0
        while not all(task.done() for task in hostile):
            async with asyncio.timeout(PATIENCE_S):
                await engine.analyze(photo())
            answered += 1
            assert engine.decoding_s < PATIENCE_S
        for task in hostile:
            with pytest.raises(ImageTooDemanding):
                await task
        assert answered >= 4
        assert (await engine.analyze(photo())).faces


async def test_of_many_files_that_take_long_each_has_its_answer(seer: Seer) -> None:
    slow = mutations.slow()
    async with EmbeddedEngine(seer, limits=ImageLimits(cpu_s=0.4)) as engine:
        tasks = [asyncio.create_task(engine.analyze(slow)) for _ in range(SLOW_FILES + 4)]
        honest = asyncio.create_task(engine.analyze(photo()))
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert (await honest).faces
    assert {type(outcome) for outcome in outcomes} == {ImageTooDemanding}


async def test_closing_ends_what_is_being_decoded(seer: Seer) -> None:
    others = set(psutil.Process().children())
    async with EmbeddedEngine(seer, limits=ImageLimits(cpu_s=60)) as engine:
        decoding = asyncio.create_task(engine.analyze(mutations.slow()))
        await asyncio.to_thread(until, lambda: a_decoder_has_begun(own_processes(others)))
        await engine.close(limit_s=0)
        with pytest.raises(Unavailable):
            await decoding
    await asyncio.to_thread(until, lambda: not own_processes(others))


def own_processes(others: set[psutil.Process]) -> set[psutil.Process]:
    """This process' children, but for some."""
    return set(psutil.Process().children()) - others


def a_decoder_has_begun(processes: set[psutil.Process]) -> bool:
    """Whether one of them has taken a tenth of a second of processor time."""
    times = [each.cpu_times() for each in processes]
    return any(each.user + each.system > 0.1 for each in times)


async def test_a_full_queue_is_busy_and_a_late_answer_is_none(seer: Seer) -> None:
    seer.go_on.clear()
    async with EmbeddedEngine(seer, queue_size=1, max_batch=1) as engine:
        first = asyncio.create_task(engine.analyze(photo()))
        assert await asyncio.to_thread(seer.begun.wait, PATIENCE_S)
        with pytest.raises(DeadlineExceeded):
            await engine.analyze(photo(), deadline_s=after(0.001))
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
