"""Model weights from the network to a folder, once.

A download resumes where it was cut, is asked for again after a fault that may pass
(`engine.vision.retries`), is checked against the file's sha256 before it gets its name, and happens
once even if two processes want it. Without a network the error says which file to put
where. Knows nothing about what is inside a file.
"""

import contextlib
import errno
import hashlib
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from engine.errors import WeightsError
from engine.vision.retries import Passing, Retries, require_ok

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """One file of weights.

    Attributes:
        name: what it is called in the folder; no slashes.
        url: where it can be fetched.
        size_bytes: its exact length.
        sha256: of its content, 64 lower-case hexadecimal digits; or the first of them, where its
            publisher tells no more.
        licence: on which terms it may be used.
        folder_setting: the setting that names its folder; None where no setting does.
    """

    name: str
    url: str
    size_bytes: int
    sha256: str
    licence: str
    folder_setting: str | None = "FACE_WEIGHTS_DIR"

    @property
    def identity(self) -> str:
        """Name, size and hash in one line, for messages."""
        return f"{self.name} ({self.size_bytes:,} bytes, sha256 {self.sha256})"


def find(file: WeightsFile, folder: Path) -> Path | None:
    """Look a file up and verify it (a tenth of a second for a hundred megabytes).

    Returns:
        Its path; None where there is no such file.

    Raises:
        WeightsError: a file of that name is there and is another one ("weights_corrupt") or
            cannot be read ("weights_unreadable").
    """
    path = folder / file.name
    try:
        if not path.exists():
            return None
        problem = _problem(file, path)
    except OSError as error:
        raise WeightsError(
            f"{path} cannot be read ({error.strerror}): mend its permissions.",
            code="weights_unreadable",
        ) from error
    if problem is None:
        return path
    raise WeightsError(
        f"{path} is not the expected file ({problem}): delete it, or replace it by "
        f"{file.identity} from {file.url}",
        code="weights_corrupt",
    )


def fetch(
    file: WeightsFile,
    folder: Path,
    *,
    client: httpx.Client | None = None,
    console: Console | None = None,
    retries: Retries | None = None,
) -> Path:
    """Return a verified file, downloading it where it is missing or damaged.

    An interrupted download leaves `<name>.part`, and the next call goes on from there. A progress
    bar is drawn where the console is a terminal.

    Args:
        file: which one.
        folder: where weights are kept; made if need be.
        client: talks to the server; None makes one that follows redirects and obeys the
            environment's proxy settings.
        console: where progress is shown; None is standard error.
        retries: how often the server is asked again; None is `Retries()`.

    Returns:
        The path of the file in `folder`.

    Raises:
        WeightsError: it could not be had; the message says what to put where.
    """
    try:
        found = find(file, folder)
    except WeightsError as error:
        if error.code == "weights_unreadable":
            raise
        _LOG.warning("%s Fetching it again.", error.message)
        found = None
    if found is not None:
        return found
    console = console or Console(stderr=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _lock(file, folder):
            # Another process may have fetched it while this one waited for the lock.
            with contextlib.suppress(WeightsError):
                found = find(file, folder)
            if found is not None:
                return found
            with contextlib.ExitStack() as stack:
                if client is None:
                    timeout = httpx.Timeout(30.0, connect=15.0)
                    client = httpx.Client(follow_redirects=True, timeout=timeout, trust_env=True)
                    stack.enter_context(client)
                return _Download(file, folder, client, console, retries or Retries()).run()
    except OSError as error:
        raise _disk_error(file, folder, error) from error


@contextlib.contextmanager
def _lock(file: WeightsFile, folder: Path) -> Iterator[None]:
    lock = FileLock(folder / f"{file.name}.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        _LOG.warning("Another process is fetching %s: waiting for it.", file.name)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


class _Download:
    """One file's way from a server to its name, under the lock."""

    def __init__(
        self,
        file: WeightsFile,
        folder: Path,
        client: httpx.Client,
        console: Console,
        retries: Retries,
    ) -> None:
        self._file = file
        self._folder = folder
        self._client = client
        self._console = console
        self._retries = retries
        self._path = folder / file.name
        self._part = folder / f"{file.name}.part"
        # The version of the file that the part belongs to, so that two are never glued together.
        self._etag = folder / f"{file.name}.part.etag"

    def run(self) -> Path:
        self._check_room()
        resumed = self._have() > 0
        self._receive()
        problem = _problem(self._file, self._part)
        if problem is not None and resumed:
            # The first half may have come from another version, or from a crash: once from zero.
            _LOG.warning("The resumed %s is damaged (%s): starting over.", self._part, problem)
            self._discard()
            self._receive()
            problem = _problem(self._file, self._part)
        if problem is not None:
            self._discard()
            raise WeightsError(
                f"What {self._file.url} sent is not the expected file ({problem}) and was removed. "
                f"Try again; {_by_hand(self._file, self._folder)}",
                code="weights_corrupt",
            )
        with self._part.open("rb") as file:
            os.fsync(file.fileno())
        self._part.replace(self._path)
        self._etag.unlink(missing_ok=True)
        return self._path

    def _check_room(self) -> None:
        missing = self._file.size_bytes - self._have()
        if shutil.disk_usage(self._folder).free < missing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _have(self) -> int:
        return self._part.stat().st_size if self._part.exists() else 0

    def _discard(self) -> None:
        self._part.unlink(missing_ok=True)
        self._etag.unlink(missing_ok=True)

    def _receive(self) -> None:
        """Fill the part file."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        bar = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        _LOG.info("Fetching %s from %s.", self._file.identity, self._file.url)
        with bar:
            task = bar.add_task(self._file.name, total=self._file.size_bytes)
            try:
                self._retries.run(lambda: self._go_on(bar, task))
            except (httpx.HTTPError, Passing) as error:
                raise self._unreachable(error) from error

    def _go_on(self, bar: Progress, task: TaskID) -> None:
        if self._have() == self._file.size_bytes:
            return
        with self._open() as (response, have):
            self._write(response, have, bar, task)

    @contextlib.contextmanager
    def _open(self) -> Iterator[tuple[httpx.Response, int]]:
        """The server's answer, and how many bytes of the part it continues."""
        have = self._have()
        if have > self._file.size_bytes:
            self._discard()
            have = 0
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
            if self._etag.exists():
                headers["If-Range"] = self._etag.read_text("utf-8")
        with self._client.stream("GET", self._file.url, headers=headers) as response:
            if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                self._discard()
                raise Passing("the server cannot continue what was begun", pause_s=0.0)
            require_ok(response, httpx.codes.PARTIAL_CONTENT)
            if response.status_code == httpx.codes.PARTIAL_CONTENT:
                expected = f"bytes {have}-{self._file.size_bytes - 1}/{self._file.size_bytes}"
                if response.headers.get("Content-Range") != expected:
                    self._discard()
                    raise Passing("the server continued another file", pause_s=0.0)
            else:
                have = 0
                self._check_length(response)
            yield response, have

    def _check_length(self, response: httpx.Response) -> None:
        length = response.headers.get("Content-Length", "")
        if length.isdigit() and int(length) != self._file.size_bytes:
            raise WeightsError(
                f"{self._file.url} offers {int(length):,} bytes where {self._file.size_bytes:,} "
                f"are expected: nothing was fetched. {_by_hand(self._file, self._folder)}",
                code="weights_corrupt",
            )

    def _write(self, response: httpx.Response, have: int, bar: Progress, task: TaskID) -> None:
        etag = response.headers.get("ETag", "")
        # A weak validator promises nothing about the bytes.
        if etag and not etag.startswith("W/"):
            self._etag.write_text(etag, "utf-8")
        else:
            self._etag.unlink(missing_ok=True)
        with self._part.open("ab" if have else "wb") as part:
            bar.update(task, completed=have)
            for data in response.iter_raw():
                have += len(data)
                if have > self._file.size_bytes:
                    break
                part.write(data)
                bar.update(task, completed=have)
        if have > self._file.size_bytes:
            self._discard()
            raise WeightsError(
                f"{self._file.url} sends more than the {self._file.size_bytes:,} bytes expected; "
                f"what came was removed. {_by_hand(self._file, self._folder)}",
                code="weights_corrupt",
            )
        if have < self._file.size_bytes:
            raise Passing("the connection ended early")

    def _unreachable(self, reason: object) -> WeightsError:
        have = self._have()
        kept = f"{have:,} bytes are kept and the next try goes on from there. " if have else ""
        return WeightsError(
            f"{self._file.name} could not be fetched from {self._file.url} ({reason}). {kept}"
            f"{_by_hand(self._file, self._folder)}"
        )


def _by_hand(file: WeightsFile, folder: Path) -> str:
    other = f", or name the folder that has it in {file.folder_setting}"
    return (
        f"To do without this download, put {file.identity} into {folder}"
        f"{other if file.folder_setting else ''}."
    )


def _disk_error(file: WeightsFile, folder: Path, error: OSError) -> WeightsError:
    other = f", or name another folder in {file.folder_setting}" if file.folder_setting else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return WeightsError(
            f"The disk is full: {folder} has no room for {file.name} ({file.size_bytes:,} bytes). "
            f"Free some space{other}."
        )
    return WeightsError(
        f"{file.name} cannot be kept in {folder} ({error.strerror or error}): make the folder "
        f"writable{other}."
    )


def _problem(file: WeightsFile, path: Path) -> str | None:
    """Why a file is not the expected one, or None."""
    size = path.stat().st_size
    if size != file.size_bytes:
        return f"it has {size:,} bytes instead of {file.size_bytes:,}"
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return None if digest.startswith(file.sha256) else f"its sha256 is {digest}"
