"""Processes that decode strangers' pictures: right answers, few means, and an end to everything."""

import contextlib
import io
import json
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pillow_heif
import psutil
import pytest
import skimage.data
from PIL import Image

from engine import errors
from engine.media import decoder_pool, image, photo_decoder
from engine.media.decoder_pool import PhotoDecoders
from engine.media.image import LIMITS, ImageLimits
from tests.engine.heifs import grid
from tests.engine.seers import PATIENCE_S, until


@pytest.fixture(scope="module")
def decoders() -> Iterator[PhotoDecoders]:
    with PhotoDecoders(1) as decoders:
        yield decoders


def encode(kind: str, size: tuple[int, int] = (96, 64), **options: object) -> bytes:
    pillow_heif.register_heif_opener()
    picture = Image.fromarray(skimage.data.astronaut()).resize(size)
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "MPO", "PNG", "GIF", "WEBP", "HEIF", "AVIF"])
def test_a_picture_is_what_it_is_without_a_process(decoders: PhotoDecoders, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(kind, exif=exif.tobytes())
    mine, expected = decoders.open(data), image.open_photo(data)
    assert (mine.width_px, mine.height_px) == (expected.width_px, expected.height_px)
    assert np.array_equal(np.asarray(mine.image), np.asarray(expected.image))


def test_a_large_picture_is_shrunk_in_the_process(decoders: PhotoDecoders) -> None:
    photo = decoders.open(encode("JPEG", (6000, 400)), at_least_px=1000)
    assert photo.image.size == (1500, 100)
    assert (photo.width_px, photo.height_px) == (6000, 400)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", errors.EmptyImage),
        (b"hello", errors.NotAnImage),
        (b"BM" + bytes(60), errors.UnsupportedFormat),
        (encode("PNG")[:-40], errors.BrokenImage),
        (grid([2] * 256, tile_px=4096), errors.ImageTooDemanding),
    ],
)
def test_a_refusal_is_what_it_is_without_a_process(
    decoders: PhotoDecoders, data: bytes, kind: type[errors.ImageError]
) -> None:
    with pytest.raises(kind) as caught:
        decoders.open(data)
    with pytest.raises(kind) as expected:
        image.open_photo(data)
    assert caught.value.code == kind.code
    assert caught.value.message == expected.value.message
    assert decoders.open(encode("JPEG")).width_px == 96  # the next file has its answer


def test_a_stream_larger_than_its_header_costs_the_process_and_nobody_else(
    decoders: PhotoDecoders,
) -> None:
    large = encode("AVIF", (4000, 4000), quality=20, speed=10)
    old = b"ispe" + struct.pack(">III", 0, 4000, 4000)
    assert old in large
    lying = large.replace(old, b"ispe" + struct.pack(">III", 0, 100, 100))
    before = psutil.Process().memory_info().rss
    with contextlib.suppress(errors.ImageError):
        assert decoders.open(lying).image.size == (100, 100)
    assert psutil.Process().memory_info().rss - before < 20 * 2**20
    assert decoders.open(encode("JPEG")).width_px == 96


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux")
def test_an_idle_decoder_gives_memory_back() -> None:
    others = set(children())
    with PhotoDecoders(1) as decoders:
        decoders.open(encode("PNG"))
        (pid,) = set(children()) - others
        decoder = psutil.Process(pid)
        small = decoder.memory_info().rss
        decoders.open(encode("PNG", (5000, 5000)))
        until(lambda: decoder.memory_info().rss - decoder.memory_info().shared < small + 2**24)


def test_too_little_memory_is_told() -> None:
    with PhotoDecoders(1, limits=ImageLimits(memory_bytes=8 * 2**20)) as small:
        with pytest.raises(errors.ImageError) as caught:
            small.open(encode("PNG", (4000, 4000), compress_level=1))
        assert caught.value.code in ("image_too_demanding", "broken_image")
        assert small.open(encode("JPEG")).width_px == 96


def test_the_process_has_no_environment_and_no_descriptors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TELEGRAM_TOKEN", "secret")
    tell = (
        "sorted(os.environ), [os.readlink(link) for number in os.listdir('/proc/self/fd')"
        " if int(number) > 2 and os.path.lexists(link := f'/proc/self/fd/{number}')]"
    )
    kept = os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(kept, True)
    try:
        with (
            saying(f"refuse(json.dumps(['broken_image', json.dumps([{tell}])]))") as talker,
            pytest.raises(errors.BrokenImage) as caught,
        ):
            talker.open(encode("JPEG"))
    finally:
        os.close(kept)
    environ, descriptors = json.loads(caught.value.message)
    assert not [name for name in environ if not name.startswith(("LC_", "MALLOC_"))]  # no secret
    assert [name for name in descriptors if not name.startswith("/memfd:pixels")] == []


# --- Processes that misbehave ---

_FORMATS = [
    kind.format for kind in (photo_decoder.REQUEST, photo_decoder.REPLY, photo_decoder.PICTURE)
]
_TALKER = f"REQUEST, REPLY, PICTURE = map(struct.Struct, {_FORMATS!r})"
_TALKER = (
    f"import json, os, struct, sys, time\n{_TALKER}"
    + """
out = sys.stdout.buffer
shared = sys.argv[2:]

def say(*parts):
    out.write(b"".join(parts))
    out.flush()

def refuse(told):
    say(REPLY.pack(1, len(told)), told.encode())

def picture(pixels):
    if shared:
        os.pwrite(int(shared[0]), pixels, 0)
    say(REPLY.pack(0, 0), PICTURE.pack(1, 1, 1, 1), b"" if shared else pixels)

say(b"R[]\\n")
while head := sys.stdin.buffer.read(REQUEST.size):
    data = sys.stdin.buffer.read(REQUEST.unpack(head)[0])
    if data.endswith(b"honest"):
        picture(b"abc")
        continue
"""
)


def saying(program: str, limits: ImageLimits = LIMITS, count: int = 1) -> PhotoDecoders:
    """Decoders that answer honest files, and do something else with others."""
    indented = "\n".join("    " + line for line in program.splitlines())
    return PhotoDecoders(
        count, limits=limits, program=(sys.executable, "-I", "-c", _TALKER + indented)
    )


HONEST = b"\xff\xd8\xff honest"
OTHER = b"\xff\xd8\xff other"


def test_who_takes_too_much_processor_time_is_ended_and_replaced() -> None:
    with saying("while True: pass", ImageLimits(cpu_s=0.3)) as decoders:
        with pytest.raises(errors.ImageTooDemanding):
            decoders.open(OTHER)
        assert decoders.open(HONEST).image.getpixel((0, 0)) == tuple(b"abc")


def test_who_hangs_is_ended_and_replaced() -> None:
    with saying("time.sleep(1000)", ImageLimits(wait_s=0.5)) as decoders:
        with pytest.raises(errors.ImageTooDemanding):
            decoders.open(OTHER)
        assert decoders.open(HONEST).width_px == 1


@pytest.mark.parametrize(
    "program",
    [
        "os.abort()",
        "sys.exit(0)",
        "say(REPLY.pack(0, 0), PICTURE.pack(70_000, 70_000, 70_000, 70_000))",
        "say(REPLY.pack(0, 0), PICTURE.pack(9, 9, 3, 3))",
        "say(REPLY.pack(0, 0), PICTURE.pack(0, 0, 0, 0))",
        "refuse('not json')",
        'refuse(\'["internal", "x"]\')',
        "refuse('[\"broken_image\", 7]')",
        "refuse('{}')",
        "say(REPLY.pack(1, 2**31))\nwhile True: say(bytes(4096))",
    ],
)
def test_who_says_what_cannot_be_is_not_believed(program: str) -> None:
    with saying(program) as decoders:
        with pytest.raises(errors.BrokenImage, match="fail"):
            decoders.open(OTHER)
        assert decoders.open(HONEST).width_px == 1


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux")
def test_the_pixels_memory_cannot_be_taken_away() -> None:
    program = """try:
    os.ftruncate(int(shared[0]), 0)
except PermissionError:
    picture(b"def")"""
    with saying(program) as decoders:
        assert decoders.open(OTHER).image.getpixel((0, 0)) == tuple(b"def")


def test_where_no_memory_can_be_shared_the_pixels_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode("PNG")
    monkeypatch.setattr(decoder_pool, "_shared_memory", lambda _: contextlib.nullcontext())
    with PhotoDecoders(1) as decoders:
        photo = decoders.open(data)
    assert np.array_equal(np.asarray(photo.image), np.asarray(image.open_photo(data).image))


def test_a_long_answer_is_cut_and_printable() -> None:
    with (
        saying("refuse(json.dumps(['broken_image', 'a\\x1b[2Jb']))") as decoders,
        pytest.raises(errors.BrokenImage) as caught,
    ):
        decoders.open(OTHER)
    assert caught.value.message == "a[2Jb"


def test_who_takes_long_makes_place_for_others() -> None:
    with saying("while True: pass", ImageLimits(cpu_s=30)) as decoders:
        refused: list[Exception] = []
        slow = threading.Thread(target=lambda: refused.append(outcome(decoders, OTHER)))
        slow.start()
        assert decoders.open(HONEST).width_px == 1  # waits for the only place
        assert slow.is_alive()
        assert decoders.stalled_s == 0
        decoders.close()
        slow.join(PATIENCE_S)
    assert type(refused[0]) is errors.Unavailable


def test_it_is_told_for_how_long_nothing_was_decoded() -> None:
    now = [0.0]
    begun = threading.Event()

    def clock() -> float:
        return now[0]

    program = "say(REPLY.pack(0, 0))\ntime.sleep(1000)"
    indented = "\n".join("    " + line for line in program.splitlines())
    with PhotoDecoders(
        1, program=(sys.executable, "-I", "-c", _TALKER + indented), clock=clock
    ) as decoders:
        assert decoders.stalled_s == 0
        waiting = threading.Thread(target=lambda: (begun.set(), outcome(decoders, OTHER)))
        waiting.start()
        assert begun.wait(PATIENCE_S)
        until(lambda: decoders._places.free == 0)
        now[0] = 25.0
        assert decoders.stalled_s == 25
        decoders.close()
        waiting.join(PATIENCE_S)


def test_closing_ends_all_processes_and_answers_everybody() -> None:
    before = set(children())
    with saying("time.sleep(1000)", count=2) as decoders:
        answers: list[Exception] = []
        threads = [
            threading.Thread(target=lambda: answers.append(outcome(decoders, OTHER)))
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        until(lambda: len(set(children()) - before) == 2)
        decoders.close()
        for thread in threads:
            thread.join(PATIENCE_S)
    assert [type(answer) for answer in answers] == [errors.Unavailable] * 3
    until(lambda: not set(children()) - before)
    with pytest.raises(errors.Unavailable):
        decoders.open(HONEST)


def test_where_no_process_can_be_started_the_engine_is_unavailable() -> None:
    for program, told in (
        (("/nowhere/python",), "started"),
        ((sys.executable, "-c", "raise SystemExit(3)"), "doctor"),
    ):
        with (
            PhotoDecoders(1, program=program) as decoders,
            pytest.raises(errors.Unavailable, match=told),
        ):
            decoders.open(HONEST)


def test_a_decoder_that_loses_its_parent_ends(tmp_path: Path) -> None:
    limits = json.dumps(photo_decoder.arguments(LIMITS))
    read, write = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-I", "-B", photo_decoder.__file__, *json.loads(limits)],
        stdin=read,
        stdout=subprocess.PIPE,
        env={},
        cwd=tmp_path,
    )
    os.close(read)
    assert child.stdout is not None
    assert child.stdout.read(1) == photo_decoder.READY
    os.close(write)
    assert child.wait(PATIENCE_S) == 0
    child.stdout.close()


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux")
def test_a_decoder_that_is_stopped_does_not_outlive_its_parent() -> None:
    script = (
        "import time; from engine.media.decoder_pool import PhotoDecoders; d = PhotoDecoders(1); "
        "d.in_force(); print('ready', flush=True); time.sleep(1000)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        (decoder,) = psutil.Process(parent.pid).children()
        decoder.suspend()
        until(lambda: decoder.status() == psutil.STATUS_STOPPED)
        parent.kill()
    gone, _ = psutil.wait_procs([decoder], timeout=PATIENCE_S)
    assert gone


def outcome(decoders: PhotoDecoders, data: bytes) -> Exception:
    try:
        decoders.open(data)
    except errors.EngineError as error:
        return error
    raise AssertionError("it was decoded")


def children() -> list[int]:
    return [child.pid for child in psutil.Process().children(recursive=True)]
