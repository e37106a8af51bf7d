import asyncio
import threading
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engine.errors import BundleError, Busy, InternalError
from engine.runtime.reload import Reloader
from tests.engine.seers import PATIENCE_S, seer


class Holder:
    """An engine, as far as its analyzer goes."""

    def __init__(self):
        self.swapped = []
        self.changed = asyncio.Event()

    def swap(self, analyzer):
        self.swapped.append(analyzer.bundle)
        self.changed.set()


class Builder:
    """Builds one successor after the other, when it is let."""

    def __init__(self):
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.go_on.set()
        self.fault = None
        self.count = 0
        self.threads = set()

    def __call__(self):
        self.count += 1
        self.threads.add(threading.current_thread().name)
        self.begun.release()
        assert self.go_on.wait(PATIENCE_S)
        if self.fault is not None:
            raise self.fault
        return seer(f"tests@{self.count}")


@pytest.fixture
async def holder():
    return Holder()


@pytest.fixture
def builder():
    builder = Builder()
    yield builder
    builder.go_on.set()


async def begun(builder):
    assert await asyncio.to_thread(builder.begun.acquire, timeout=PATIENCE_S)


async def test_builds_in_a_thread_of_its_own_and_swaps(holder, builder):
    outcomes = []
    reloader = Reloader(holder, builder)
    reloader.observe(outcomes.append)
    assert (await reloader.reload()).bundle == "tests@1"
    assert holder.swapped == ["tests@1"]
    assert threading.current_thread().name not in builder.threads
    assert outcomes == ["ok"]


async def test_a_bad_bundle_changes_nothing_and_says_why(holder, builder, caplog):
    outcomes = []
    builder.fault = BundleError("Torn: build it again.", code="bundle_incomplete")
    reloader = Reloader(holder, builder)
    reloader.observe(outcomes.append)
    with pytest.raises(BundleError, match="Torn"):
        await reloader.reload()
    assert not holder.swapped
    assert outcomes == ["bundle_incomplete"]
    assert "Torn" in caplog.text
    builder.fault = None
    assert (await reloader.reload()).bundle == "tests@2"


async def test_a_bug_changes_nothing_either(holder, builder):
    builder.fault = KeyError("oops")
    with pytest.raises(InternalError):
        await Reloader(holder, builder).reload()
    assert not holder.swapped


async def test_one_at_a_time(holder, builder):
    builder.go_on.clear()
    reloader = Reloader(holder, builder)
    first = asyncio.create_task(reloader.reload())
    await begun(builder)
    with pytest.raises(Busy):
        await reloader.reload()
    signalled = asyncio.create_task(reloader.on_signal())
    builder.go_on.set()
    await first
    await signalled
    assert holder.swapped == ["tests@1", "tests@2"]


async def test_a_caller_who_leaves_does_not_stop_it(holder, builder):
    builder.go_on.clear()
    reloader = Reloader(holder, builder)
    caller = asyncio.create_task(reloader.reload())
    await begun(builder)
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    builder.go_on.set()
    async with asyncio.timeout(PATIENCE_S):
        await holder.changed.wait()
    assert holder.swapped == ["tests@1"]


async def test_one_that_is_cancelled_is_not_told_as_done(holder, builder):
    outcomes = []
    builder.go_on.clear()
    reloader = Reloader(holder, builder)
    reloader.observe(outcomes.append)
    signalled = asyncio.create_task(reloader.on_signal())
    await begun(builder)
    signalled.cancel()
    await asyncio.gather(signalled, return_exceptions=True)
    assert signalled.cancelled()
    assert outcomes == ["cancelled"]
    assert not holder.swapped


async def test_a_bug_is_told_as_one(holder, builder):
    outcomes = []
    builder.fault = KeyError("oops")
    reloader = Reloader(holder, builder)
    reloader.observe(outcomes.append)
    await reloader.on_signal()
    assert outcomes == ["internal"]


async def test_an_observer_that_fails_is_logged_and_costs_nothing(holder, builder, caplog):
    def fail(_outcome):
        raise KeyError("no such label")

    outcomes = []
    reloader = Reloader(holder, builder)
    reloader.observe(fail)
    reloader.observe(outcomes.append)
    assert (await reloader.reload()).bundle == "tests@1"
    assert outcomes == ["ok"]
    assert "no such label" in caplog.text


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "people.json"
    file.write_text("1")
    return file


def replace(file: Path, text: str) -> None:
    """As bundles are written: another file takes the name."""
    other = file.with_suffix(".new")
    other.write_text(text)
    other.replace(file)


class Looks:
    """The pauses between looks, which end when the test says so."""

    def __init__(self):
        self._paused = asyncio.Queue()
        self._go_on = asyncio.Queue()

    async def pause(self, _seconds):
        self._paused.put_nowait(None)
        await self._go_on.get()

    async def once(self):
        """Let one look be taken, and whatever comes of it."""
        self._go_on.put_nowait(None)
        await self._until_over()

    async def _until_over(self):
        async with asyncio.timeout(PATIENCE_S):
            await self._paused.get()

    @asynccontextmanager
    async def of(self, reloader):
        watching = asyncio.create_task(reloader.watch(1))
        await self._until_over()
        yield
        watching.cancel()


async def test_a_changed_file_is_loaded_once(holder, builder, file):
    looks = Looks()
    async with looks.of(Reloader(holder, builder, file=file, pause=looks.pause)):
        await looks.once()
        assert builder.count == 0
        replace(file, "2")
        await looks.once()
        await looks.once()
    assert holder.swapped == ["tests@1"]


async def test_a_bad_file_is_tried_once_and_a_mended_one_again(holder, builder, file):
    looks = Looks()
    async with looks.of(Reloader(holder, builder, file=file, pause=looks.pause)):
        builder.fault = BundleError("Torn.")
        replace(file, "22")
        await looks.once()
        await looks.once()
        assert builder.count == 1
        file.unlink()
        await looks.once()
        assert builder.count == 1
        builder.fault = None
        file.write_text("333")
        await looks.once()
    assert holder.swapped == ["tests@2"]


async def test_what_was_loaded_on_demand_is_not_loaded_again(holder, builder, file):
    looks = Looks()
    reloader = Reloader(holder, builder, file=file, pause=looks.pause)
    replace(file, "22")
    await reloader.reload()
    async with looks.of(reloader):
        await looks.once()
    assert builder.count == 1


async def test_no_time_between_looks_is_no_look(holder, builder, file):
    async def pause(seconds):
        raise AssertionError(f"It looks again after {seconds} s.")

    reloader = Reloader(holder, builder, file=file, pause=pause)
    replace(file, "22")
    async with asyncio.timeout(PATIENCE_S):
        await reloader.watch(0)
    assert builder.count == 0


async def test_a_look_that_fails_does_not_end_the_watch(holder, builder, file, caplog):
    """Which file it is may be unknown for a while, as where a disk is gone."""
    faults = []

    def tell_file():
        if faults:
            raise faults.pop()
        return file

    looks = Looks()
    async with looks.of(Reloader(holder, builder, file=tell_file, pause=looks.pause)):
        faults.append(RuntimeError("can't start new thread"))
        replace(file, "22")
        await looks.once()
        assert not holder.swapped
        assert "can't start new thread" in caplog.text
        await looks.once()
    assert holder.swapped == ["tests@1"]
