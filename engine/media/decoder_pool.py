"""Strangers' picture files to pixels, by a few confined processes.

Each process decodes one file at a time and lives for many. Their parent measures the processor time
of every file. One that takes long is stopped (SIGSTOP), makes its place free for another, and goes
on when its turn among the slow ones comes; one that takes more than it may have is refused, and its
process ended. Neither costs any other file its answer. Synchronous, for threads. Knows nothing
about formats or faces.
"""

import contextlib
import fcntl
import json
import logging
import mmap
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Self

import psutil
from PIL import Image

from engine import errors
from engine.errors import BrokenImage, EngineError, ImageError, Unavailable
from engine.media import photo_decoder
from engine.media.image import ENOUGH_PX, LIMITS, ImageLimits, Photo, check_length, too_demanding
from engine.media.photo_decoder import DECODED, PICTURE, READY, REPLY, REQUEST

_LOG = logging.getLogger(__name__)

PROGRAM = (sys.executable, "-I", "-B", photo_decoder.__file__)
"""Isolated: neither the environment nor the present folder decides what is imported."""

SLOW_AFTER_S = 0.15
"""Of processor time, after which a file makes place for others; a photo of 12 megapixels takes
less."""
SLOW_FILES = 4
"""That may be at hand besides, most of them stopped; one more keeps its place."""

ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**30)}
"""A decoder's whole environment. glibc's malloc (mallopt(3)) keeps memory for the next file, until
none comes for a while: getting a large photo's from the kernel page by page takes as long as
decoding it."""

_REPLACED_AFTER_S = photo_decoder.LIFETIME_CPU_S / 2
_LOOK_EVERY_S = 0.02
_START_S = 30.0
_CHUNK_BYTES = 2**20
_PIPE_BYTES = 2**20
_WORDS_BYTES = 4000

_REFUSALS = {
    kind.code: kind
    for kind in (
        *(errors.EmptyImage, errors.NotAnImage, errors.UnsupportedFormat, errors.BrokenImage),
        *(errors.FileTooLarge, errors.TooManyPixels, errors.ImageTooDemanding),
    )
}


class PhotoDecoders:
    """A few processes that decode pictures, each started when it is first needed.

    Args:
        count: how many files are decoded at a time, besides those that take long; further callers
            of `open` wait.
        limits: what each file may ask for.
        program: what decodes, as `engine.media.photo_decoder` does.
        clock: tells seconds.
    """

    def __init__(
        self,
        count: int,
        *,
        limits: ImageLimits = LIMITS,
        program: Sequence[str] = PROGRAM,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._places = _Places(count, clock)
        self._slow = _SlowFiles(max(1, count - 1))
        self._decoders = [_Decoder(program, limits, clock) for _ in range(count + SLOW_FILES)]
        self._free = list(self._decoders)
        self._freed = threading.Condition()

    def open(self, data: bytes, *, at_least_px: int | None = ENOUGH_PX) -> Photo:
        """Decode a picture file: see `engine.media.image.decode_scaled`.

        Args:
            data: the file.
            at_least_px: as there; what faces are looked for in unless something else is said.

        Raises:
            ImageError: the bytes cannot become a picture (one subclass per reason).
            Unavailable: no process could be started, or the decoders were closed.
        """
        check_length(data, self._limits)
        with self._places.taken() as give_up, contextlib.ExitStack() as turn:

            def make_place() -> None:
                """Return when it is this file's turn among the slow ones."""
                with contextlib.suppress(Unavailable):  # the next file will say so
                    self.start()
                turn.enter_context(self._slow.turn(give_up))

            with self._decoder() as decoder:
                return decoder.decode(data, at_least_px, make_place)

    def start(self, *, every: bool = False) -> None:
        """Start a process before it is needed, where none is idle; do not wait until it is ready.

        Args:
            every: start all that there may ever be.

        Raises:
            Unavailable: it could not be started.
        """
        with self._freed:
            for decoder in self._free if every else self._free[:1] and [self._best()]:
                decoder.start()

    @property
    def stalled_s(self) -> float:
        """For how long no file has made place for another; 0 where there is a place."""
        return self._places.stalled_s

    def in_force(self) -> list[str]:
        """What a decoder here is kept from, beyond limits of memory, files and processor time.

        Raises:
            Unavailable: no process could be started.
        """
        with self._decoder() as decoder:
            return decoder.in_force()

    def close(self) -> None:
        """End all processes, at once: whoever still waits for one gets `Unavailable`."""
        self._slow.close()
        for decoder in self._decoders:
            decoder.close()

    @contextlib.contextmanager
    def _decoder(self) -> "Iterator[_Decoder]":
        """One that is idle, for as long as the block lasts."""
        with self._freed:
            self._freed.wait_for(lambda: self._free)
            decoder = self._best()
            self._free.remove(decoder)
        try:
            yield decoder
        finally:
            with self._freed:
                self._free.insert(0, decoder)  # the next file gets the memory that it keeps
                self._freed.notify()

    def _best(self) -> "_Decoder":
        return next((decoder for decoder in self._free if decoder.started), self._free[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Places:
    """Places for files that do not take long."""

    def __init__(self, count: int, clock: Callable[[], float]) -> None:
        self._semaphore = threading.Semaphore(count)
        self._lock = threading.Lock()
        self._clock = clock
        self.free = count
        self._changed = clock()

    @contextlib.contextmanager
    def taken(self) -> Iterator[Callable[[], None]]:
        """A place, for as long as the block lasts or until what is yielded is called."""
        self._semaphore.acquire()
        self._count(-1)
        given_up = False

        def give_up() -> None:
            nonlocal given_up
            if not given_up:
                given_up = True
                self._count(+1)
                self._semaphore.release()

        try:
            yield give_up
        finally:
            give_up()

    @property
    def stalled_s(self) -> float:
        with self._lock:
            return 0.0 if self.free else self._clock() - self._changed

    def _count(self, change: int) -> None:
        with self._lock:
            self.free += change
            self._changed = self._clock()


class _SlowFiles:
    """Turns for files that take long."""

    def __init__(self, at_a_time: int) -> None:
        self._turns = threading.Semaphore(at_a_time)
        self._lock = threading.Lock()
        self._count = 0
        self._closed = False

    def close(self) -> None:
        self._closed = True

    @contextlib.contextmanager
    def turn(self, make_place: Callable[[], None]) -> Iterator[None]:
        """A turn, for as long as the block lasts; waits for it without a place.

        Where too many wait for one already, the block begins at once, and the place is kept.
        """
        with self._lock:
            full = self._count >= SLOW_FILES
            self._count += not full
        if full:
            yield
            return
        try:
            make_place()
            while not self._turns.acquire(timeout=_LOOK_EVERY_S):
                if self._closed:
                    raise _Ended
            try:
                yield
            finally:
                self._turns.release()
        finally:
            with self._lock:
                self._count -= 1


class _Decoder:
    """One process, and its successors."""

    def __init__(
        self, program: Sequence[str], limits: ImageLimits, clock: Callable[[], float]
    ) -> None:
        self._command = [*program, *photo_decoder.arguments(limits)]
        self._limits = limits
        self._clock = clock
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._shared: mmap.mmap | None = None
        self._ready: list[str] | None = None
        self._closed = False
        self._busy = False

    @property
    def started(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        with self._lock:
            self._running()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._process.kill()
            if not self._busy:
                self._drop()

    def in_force(self) -> list[str]:
        with self._used():
            return self._ready or []

    def decode(self, data: bytes, at_least_px: int | None, make_place: Callable[[], None]) -> Photo:
        with self._used() as process:
            limits = self._limits
            until = self._clock() + limits.wait_s
            talk = _Talk(process, self._clock, until, limits.cpu_s, make_place)
            talk.send(REQUEST.pack(len(data), at_least_px or 0))
            talk.send(data)
            return self._picture(talk)

    @contextlib.contextmanager
    def _used(self) -> "Iterator[subprocess.Popen[bytes]]":
        """The process, ready for a request; it is replaced where it does not end in good order."""
        with self._lock:
            process = self._running()
            self._busy = True
        well = False
        try:
            self._await_ready(_Talk(process, self._clock, self._clock() + _START_S))
            yield process
            well = True
        except ImageError:
            well = True  # refused in good order
            raise
        except _Ended as ended:
            raise self._fault(process, ended) from ended
        finally:
            with self._lock:
                self._busy = False
                if not well or self._closed or _cpu_s(process) > _REPLACED_AFTER_S:
                    self._drop()
                    if self._ready is not None and not self._closed:
                        with contextlib.suppress(Unavailable):  # the next file will say so
                            self._running()

    def _running(self) -> "subprocess.Popen[bytes]":
        """The process, started where there is none; with the lock."""
        if self._closed:
            raise _closed()
        if self._process is None:
            with _shared_memory(3 * self._limits.pixels) as shared:
                self._process = _started(self._command, shared)
                self._shared = None if shared is None else mmap.mmap(shared, 0)
            self._ready = None
        return self._process

    def _await_ready(self, talk: "_Talk") -> None:
        if self._ready is not None:
            return
        if talk.receive(1) != READY:
            raise _Ended
        line = bytearray()
        while not line.endswith(b"\n"):
            if len(line) > _WORDS_BYTES:
                raise _Ended
            line += talk.receive(1)
        self._ready = json.loads(line)

    def _picture(self, talk: "_Talk") -> Photo:
        """What the process answers, as far as it can be true."""
        kind, size = REPLY.unpack(talk.receive(REPLY.size))
        if kind != DECODED:
            raise _refusal(talk.receive(min(size, _WORDS_BYTES)))
        width, height, width_px, height_px = PICTURE.unpack(talk.receive(PICTURE.size))
        small = 0 < width <= width_px and 0 < height <= height_px
        if not (small and width_px * height_px <= self._limits.pixels):
            raise _Ended
        count = 3 * width * height
        if self._shared is None:
            image = Image.frombytes("RGB", (width, height), talk.receive(count))
        else:
            with memoryview(self._shared) as shared, shared[:count] as pixels:
                image = Image.frombytes("RGB", (width, height), pixels)
        return Photo(image, width_px, height_px)

    def _fault(self, process: "subprocess.Popen[bytes]", ended: "_Ended") -> EngineError:
        """What it means that the process ended, or was ended, before its answer did."""
        if self._closed:
            return _closed()
        process.kill()
        assert process.stderr is not None
        words = process.stderr.read(_WORDS_BYTES)
        status = process.wait()
        if ended.overrun:
            _LOG.warning("A photo decoder exceeded %s; file refused.", ended.overrun)
            return too_demanding()
        if self._ready is None:
            _LOG.error("No photo decoder could be started (status %d): %r", status, words)
            return Unavailable(
                "No photo decoder could be started: `python -m engine doctor` tells more."
            )
        _LOG.warning("A photo decoder ended with status %d; file refused: %r", status, words)
        return BrokenImage(
            "The picture file makes its decoder fail: send it again or use another one."
        )

    def _drop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        shared, self._shared = self._shared, None
        if shared is not None:
            shared.close()
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            assert stream is not None
            with contextlib.suppress(OSError):  # what was not sent yet
                stream.close()


class _Ended(Exception):
    """A decoder ended, or was ended, before it answered.

    Args:
        overrun: what it took too much of; empty where it ended by itself.
    """

    def __init__(self, overrun: str = "") -> None:
        super().__init__(overrun)
        self.overrun = overrun


class _Talk:
    """One exchange with a decoder, under limits.

    Args:
        process: the decoder.
        clock: tells seconds.
        until: by the clock.
        cpu_s: of processor time that it may take from now on; None is any.
        make_place: called where it takes long, and waited for while it is stopped.
    """

    def __init__(
        self,
        process: "subprocess.Popen[bytes]",
        clock: Callable[[], float],
        until: float,
        cpu_s: float | None = None,
        make_place: Callable[[], None] = lambda: None,
    ) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._clock = clock
        self._cpu_s = cpu_s
        self._began_s = 0.0 if cpu_s is None else _cpu_s(process)
        self._until = until
        self._make_place = make_place
        self._slow = False
        self._looked = clock()
        self._stdin, self._stdout = process.stdin.fileno(), process.stdout.fileno()

    def send(self, data: bytes) -> None:
        """Hand bytes over.

        Raises:
            _Ended: the decoder takes no more.
        """
        view = memoryview(data)
        while view:
            self._wait(self._stdin, select.POLLOUT)
            try:
                view = view[os.write(self._stdin, view[:_CHUNK_BYTES]) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise _Ended from error

    def receive(self, count: int) -> bytearray:
        """So many bytes.

        Raises:
            _Ended: the decoder said less.
        """
        data = bytearray(count)
        view = memoryview(data)
        while view:
            self._wait(self._stdout, select.POLLIN)
            try:
                got = os.readv(self._stdout, [view])
            except BlockingIOError:
                continue
            if not got:
                raise _Ended
            view = view[got:]
        return data

    def _wait(self, descriptor: int, event: int) -> None:
        poll = select.poll()
        poll.register(descriptor, event)
        while True:
            found = poll.poll(_LOOK_EVERY_S * 1000)
            now = self._clock()
            if now - self._looked >= _LOOK_EVERY_S:
                self._looked = now
                self._require_modest(now)
            if found:
                return

    def _require_modest(self, now: float) -> None:
        if now > self._until:
            raise _Ended("the time that is waited for it")
        if self._cpu_s is None:
            return
        spent_s = _cpu_s(self._process) - self._began_s
        if spent_s > self._cpu_s:
            raise _Ended(f"{self._cpu_s:g} s of processor time")
        if spent_s > SLOW_AFTER_S and not self._slow:
            self._slow = True
            self._process.send_signal(signal.SIGSTOP)
            self._make_place()
            self._process.send_signal(signal.SIGCONT)
            self._until += self._clock() - now


def _cpu_s(process: "subprocess.Popen[bytes]") -> float:
    """Seconds of processor time that a process has taken so far."""
    try:
        times = psutil.Process(process.pid).cpu_times()
    except psutil.Error:  # it has ended
        return 0.0
    return float(times.user + times.system)


@contextlib.contextmanager
def _shared_memory(size: int) -> Iterator[int | None]:
    """A descriptor of memory that two processes can map; None where this system has none.

    It is sealed: if the other process could make it smaller, reading it would end this one.
    """
    if sys.platform != "linux":
        yield None
        return
    descriptor = os.memfd_create("pixels", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, size)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
        yield descriptor
    finally:
        os.close(descriptor)


def _started(command: Sequence[str], shared: int | None) -> "subprocess.Popen[bytes]":
    """A decoder, told of memory to write pixels to."""
    try:
        process = subprocess.Popen(  # noqa: S603 (our own file and numbers)
            [*command, *([] if shared is None else [str(shared)])],
            pass_fds=() if shared is None else (shared,),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=ENVIRONMENT,
            cwd="/",
            # Ctrl+C is for whoever started this, who then ends it. In a session of its own, a
            # process that is stopped would outlive its parent; of a group that loses its last
            # parent the kernel hangs it up.
            process_group=0,
        )
    except OSError as error:
        _LOG.error("No photo decoder could be started: %s", error)
        raise Unavailable(
            f"No photo decoder could be started ({error.strerror}): see that the machine has "
            "processes, files and memory left."
        ) from error
    assert process.stdin is not None
    assert process.stdout is not None
    for stream in (process.stdin, process.stdout):
        os.set_blocking(stream.fileno(), False)
        if sys.platform == "linux":
            with contextlib.suppress(OSError):  # above what this user may have
                fcntl.fcntl(stream.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return process


def _refusal(told: bytes | bytearray) -> ImageError:
    try:
        code, message = json.loads(told)
        return _REFUSALS[code]("".join(filter(str.isprintable, message)))
    except (ValueError, KeyError, TypeError) as error:
        raise _Ended from error


def _closed() -> Unavailable:
    return Unavailable("The engine is shut down: ask again when it is back.")
