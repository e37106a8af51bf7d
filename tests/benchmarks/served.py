"""Starts what is measured, loads it, and watches it: processes of their own, on loopback.

Knows nothing about what is measured, or why.
"""

import http.client
import io
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import psutil

from engine import errors
from engine.media import image
from engine.pipeline import Pipeline
from engine.settings import Settings
from engine.wire import write_analysis
from tests.benchmarks.load import names
from tests.engine.seers import request_of

OURS = ("-m", "engine", "serve")
PEER = ("-m", "tests.benchmarks.recipe_service")
START_S, STOP_S = 300.0, 60.0
POLL_S = 0.25
SETTLING = 0.2
REFUSALS = {"busy", "unavailable"}


class Server:
    """A running service: its address and its process."""

    def __init__(self, process, url):
        self.process, self.url = process, url
        self._place = urlsplit(url)

    def call(self, path, method="GET", body=None):
        """(status, text), over a connection of its own."""
        with suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection(self._place.hostname, self._place.port, 30)
            try:
                connection.request(method, path, body)
                response = connection.getresponse()
                return response.status, response.read().decode()
            finally:
                connection.close()
        return 0, ""


@contextmanager
def serving(command=OURS, **settings):
    """A service that is ready; it is stopped afterwards, and its last words are shown on failure.

    Args:
        command: what Python is to run.
        settings: of the engine, as in `engine.settings.Settings`.
    """
    given = {name.upper(): str(value) for name, value in settings.items()}
    environ = os.environ | {"ENGINE_PORT": "0", "ENGINE_BUNDLE": "celebrities"} | given
    process = subprocess.Popen(
        [sys.executable, *command], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    words = io.StringIO()
    # Both pipes are read to their ends: a full one would hold the service up.
    reader = threading.Thread(target=lambda: words.writelines(map(bytes.decode, process.stderr)))
    reader.start()
    try:
        line = process.stdout.readline().decode()
        if "listens on " not in line:
            process.wait(STOP_S)
            raise SystemExit(f"{' '.join(command)} did not start: {line}{words.getvalue()}")
        server = Server(process, line.split("listens on ")[1].strip())
        deadline = time.monotonic() + START_S
        while server.call("/readyz")[0] != 200:
            if time.monotonic() > deadline:
                raise SystemExit(f"{' '.join(command)} is not ready.")
            time.sleep(POLL_S)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join()


class Load:
    """A generator's process, begun at once."""

    def __init__(self, photos, url=None, *, expected=None, warm_up=True, timeout_s=30.0, **plan):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.load"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        plan |= {
            "photos": list(map(str, photos)),
            "url": url and f"{url}/v1/analyze",
            "expected": expected,
            "warm_up": warm_up,
            "timeout_s": timeout_s,
        }
        self._process.stdin.write(json.dumps(plan).encode())
        self._process.stdin.close()
        self._process.stdin = None

    def result(self):
        """Wait for its end."""
        output, _ = self._process.communicate()
        if self._process.returncode:
            raise SystemExit("The load generator failed.")
        return json.loads(output)


class Watch:
    """Memory and health checks of a service while it is entered."""

    def __init__(self, server):
        self._server = server
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.resident_mib = []
        self.health_s = {"/livez": [], "/readyz": []}
        self.unwell = 0

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    def _look(self):
        own = psutil.Process(self._server.process.pid)
        while not self._over.wait(POLL_S):
            with suppress(psutil.NoSuchProcess):
                self.resident_mib.append(own.memory_info().rss / 2**20)
            for path, spent in self.health_s.items():
                started = time.monotonic()
                status, _ = self._server.call(path)
                spent.append(time.monotonic() - started)
                self.unwell += status != 200

    def summary(self):
        """Resident MiB over time in ten steps, and how the checks were answered."""
        steps = np.array_split(self.resident_mib, min(10, len(self.resident_mib)))
        return {
            "resident_mib": [round(float(step.max())) for step in steps],
            "checks_not_200": self.unwell,
            **{f"{path[1:]}_ms": quantiles(own) for path, own in self.health_s.items()},
        }


def quantiles(seconds):
    """Milliseconds: the usual three, and the worst."""
    if not len(seconds):
        return None
    marks = np.quantile(seconds, [0.5, 0.95, 0.99, 1.0]) * 1000
    return dict(zip(("p50", "p95", "p99", "worst"), np.round(marks, 1).tolist(), strict=True))


def summary(result, timeout_s=30.0):
    """What a load's records come to; throughput is that of its last four fifths."""
    records, lasted = result["records"], (1 - SETTLING) * result["duration_s"]
    end = result["began"] + result["duration_s"]
    answered = [record for record in records if record["code"] == "ok"]
    refused = [record["took"] for record in records if record["code"] in REFUSALS]
    in_time = [record for record in answered if record["took"] <= timeout_s]
    done = sum(end - lasted < record["at"] + record["took"] <= end for record in in_time)
    return {
        "per_s": round(done / lasted, 2),
        "answered_ms": quantiles([record["took"] for record in answered]),
        "codes": Counter(record["code"] for record in records),
        "refused_ms": quantiles(refused),
        "answered_in_time": len(in_time) / len(answered) if answered else None,
        "wrong": sum(record["wrong"] for record in answered),
        "lost": sum(record["code"].startswith("lost") for record in records),
        "generator_cores": round(result["generator_cores"], 2),
        "generator_late_ms": quantiles([record["late"] for record in records]),
    }


SIZES = (None, 1280, 640, 320)


def photo_files(folder, scratch, limit):
    """Photos of mixed sizes and face counts, as files: originals, and scaled to other lengths."""
    sources = sorted(path for path in folder.rglob("*") if path.is_file())
    files = []
    for i, number in enumerate(np.linspace(0, len(sources) - 1, limit).astype(int)):
        data, longest = sources[number].read_bytes(), SIZES[i % len(SIZES)]
        try:
            photo = image.decode(data)
        except errors.ImageError:
            continue
        path = scratch / f"{i:03}.jpg"
        if longest is not None:
            scale = longest / max(photo.size)
            photo = photo.resize((round(photo.width * scale), round(photo.height * scale)))
            buffer = io.BytesIO()
            photo.save(buffer, "JPEG", quality=90)
            data = buffer.getvalue()
        path.write_bytes(data)
        files.append(path)
    return files


def expected(settings, files):
    """{bundle id: {number of the photo: names}}, from an engine that sees one photo at a time."""
    pipeline = Pipeline.from_settings(Settings(**settings))
    said = {}
    for i, path in enumerate(files):
        request = request_of(image.open_photo(path.read_bytes()))
        (analysis,) = pipeline.analyze([request])
        said[str(i)] = names(json.loads(write_analysis(analysis)))
    return {pipeline.bundle.id: said}


def here(path):
    """A folder of photos, or SystemExit."""
    if not Path(path).is_dir():
        raise SystemExit(f"{path} is no folder of photos.")
    return Path(path)
