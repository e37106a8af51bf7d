"""A Ray on this machine, for this machine alone: started, found again, stopped.

One process holds it, and the lock that says so; the others find its address in `run/cluster`.
Everything listens on loopback, everything wants the token in that folder, nothing is reported to
anybody. Loads ray only where it says so, because Ray reads its environment when it is imported.
Knows nothing about engines.
"""

import json
import logging
import os
import secrets
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from engine.cluster.proxy import IMPORT_PATH
from engine.errors import ConfigurationError

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path("run/cluster").absolute()
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Below `uv run`, Ray would send the working directory to every process and run uv in it.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}
"""What every driver's environment says: nothing is reported, nothing is packed up."""
_OBJECT_STORE_BYTES = 80_000_000  # photos are small and never stored: the least that Ray allows


@dataclass(frozen=True, slots=True)
class Head:
    """The process that holds the local Ray.

    Attributes:
        pid: its number.
        address: where Ray's drivers connect.
        url: where the engine answers.
    """

    pid: int
    address: str
    url: str


def environment(folder: Path = FOLDER) -> dict[str, str]:
    """What the environment says before ray is imported, in the head and in whoever looks for it.

    Ray on Linux turns loopback addresses into the machine's own and listens on all of them, unless
    it believes that it is on a system without clusters.
    """
    return QUIET | {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": IMPORT_PATH,
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", "")))),
    }


@contextmanager
def held(url: str, cores: int, folder: Path = FOLDER) -> Iterator[Head]:
    """Start a Ray, hold it, stop it. Nobody finds it before it is announced. Imports ray.

    Args:
        url: where the engine is going to answer.
        cores: what Ray believes to have; more than there are leaves room for a rolling update.
            GPUs are counted by Ray.
        folder: where the others look.

    Raises:
        ConfigurationError: another process holds one already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=1)  # whoever only looks holds it for a moment
    except Timeout:
        raise ConfigurationError("A cluster runs on this machine already.") from None
    with lock:
        (folder / "head.json").unlink(missing_ok=True)  # of one that was killed
        _write(folder / "token", secrets.token_hex(32))
        os.environ.update(environment(folder))
        import ray

        ray.init(
            "local",
            num_cpus=cores,
            object_store_memory=_OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.WARNING,
        )
        try:
            yield Head(os.getpid(), ray.get_runtime_context().gcs_address, url)
        finally:
            (folder / "head.json").unlink(missing_ok=True)
            ray.shutdown()


def announce(head: Head, folder: Path = FOLDER) -> None:
    """Let the others find it."""
    _write(folder / "head.json", json.dumps(asdict(head)))


def find(folder: Path = FOLDER) -> Head | None:
    """The process that holds a local Ray, once it was announced."""
    lock = FileLock(folder / "lock")
    try:
        record = json.loads((folder / "head.json").read_text("utf-8"))
        with lock.acquire(timeout=0):
            return None  # whoever wrote it is gone
    except Timeout:
        return Head(**record)
    except (OSError, ValueError):
        return None


def connect(head: Head, folder: Path = FOLDER) -> None:
    """Become a driver of a local Ray. Imports ray."""
    os.environ.update(environment(folder))
    import ray

    ray.init(head.address, log_to_driver=False, logging_level=logging.WARNING)


def stop(head: Head, *, timeout_s: float, folder: Path = FOLDER) -> bool:
    """Ask the process to drain and stop; False when it has not within `timeout_s`."""
    try:
        os.kill(head.pid, signal.SIGTERM)
    except ProcessLookupError:
        return True
    try:
        with FileLock(folder / "lock").acquire(timeout=timeout_s):
            return True
    except Timeout:
        return False


def _write(path: Path, text: str) -> None:
    """Whole or not at all, and for nobody else to read."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    part.replace(path)
