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
import re
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
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

from engine import locks
from engine.errors import WeightsError
from engine.files import replacing
from engine.vision.retries import Passing, Retries, require_ok

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """One file of weights.

    Attributes:
        name: what it is called in the folder; no slashes.
        url: where it can be fetched.
        size_bytes: its exact length; None where only its server tells.
        sha256: of its content, 64 lower-case hexadecimal digits; or the first of them, where its
            publisher tells no more.
        licence: on which terms it may be used.
        folder_setting: the setting that names its folder; None where no setting does.
    """

    name: str
    url: str
    size_bytes: int | None
    sha256: str
    licence: str
    folder_setting: str | None = "FACE_WEIGHTS_DIR"

    @property
    def identity(self) -> str:
        """Name, size and hash in one line, for messages."""
        size = "" if self.size_bytes is None else f"{self.size_bytes:,} bytes, "
        return f"{self.name} ({size}sha256 {self.sha256})"


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
    console: Console | None = None,
    retries: Retries | None = None,
) -> Path:
    """Return a verified file, downloading it where it is missing or damaged.

    An interrupted download leaves `<name>.part`, and the next call goes on from there. A progress
    bar is drawn where the console is a terminal. The environment's proxy settings are obeyed.

    Args:
        file: which one.
        folder: where weights are kept; made if need be.
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
        waiting = partial(
            _LOG.warning, "Another process is fetching %s: waiting for it.", file.name
        )
        with locks.alone(folder / f"{file.name}.lock", waiting):
            # Another process may have fetched it while this one waited for the lock.
            with contextlib.suppress(WeightsError):
                found = find(file, folder)
            if found is not None:
                return found
            timeout = httpx.Timeout(30.0, connect=15.0)
            with httpx.Client(follow_redirects=True, timeout=timeout) as client:
                return _Download(file, folder, client, console, retries or Retries()).run()
    except OSError as error:
        raise _disk_error(file, folder, error) from error


def keep(file: WeightsFile, content: bytes, folder: Path) -> Path:
    """Write a file's content, which came another way, into the folder.

    Raises:
        WeightsError: it cannot be written.
    """
    try:
        with replacing(folder / file.name) as target:
            target.write(content)
    except OSError as error:
        raise _disk_error(file, folder, error) from error
    return folder / file.name


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
        size = self._file.size_bytes
        if size is not None and self._have() >= size:
            if self._have() == size:
                return
            self._discard()
        headers = {"Accept-Encoding": "identity"}
        have = self._have()
        if have:
            headers["Range"] = f"bytes={have}-"
            if self._etag.exists():
                headers["If-Range"] = self._etag.read_text("utf-8")
        with self._client.stream("GET", self._file.url, headers=headers) as response:
            if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                self._discard()
                raise Passing("the server cannot continue what was begun", pause_s=0.0)
            require_ok(response, httpx.codes.PARTIAL_CONTENT)
            if response.status_code != httpx.codes.PARTIAL_CONTENT:
                have = 0
            self._write(response, have, self._length(response, have), bar, task)

    def _length(self, response: httpx.Response, have: int) -> int:
        """How long the file is, by its description and the server's."""
        expected = self._file.size_bytes
        if have:
            said = response.headers.get("Content-Range", "")
            end = re.fullmatch(rf"bytes {have}-(\d+)/(\d+)", said)
            if end is None or int(end[1]) + 1 != int(end[2]) or expected not in (None, int(end[2])):
                self._discard()
                raise Passing("the server continued another file", pause_s=0.0)
            return int(end[2])
        said = response.headers.get("Content-Length", "")
        length = int(said) if said.isdigit() else expected
        if length is None or expected not in (None, length):
            offered = (
                "does not say how many bytes it has"
                if length is None
                else (f"offers {length:,} bytes where {expected:,} are expected")
            )
            raise WeightsError(
                f"{self._file.url} {offered}: nothing was fetched. "
                f"{_by_hand(self._file, self._folder)}",
                code="weights_corrupt",
            )
        return length

    def _write(
        self, response: httpx.Response, have: int, length: int, bar: Progress, task: TaskID
    ) -> None:
        if shutil.disk_usage(self._folder).free < length - have:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        etag = response.headers.get("ETag", "")
        # A weak validator promises nothing about the bytes.
        if etag and not etag.startswith("W/"):
            self._etag.write_text(etag, "utf-8")
        else:
            self._etag.unlink(missing_ok=True)
        with self._part.open("ab" if have else "wb") as part:
            bar.update(task, completed=have, total=length)
            for data in response.iter_raw():
                have += len(data)
                if have > length:
                    break
                part.write(data)
                bar.update(task, completed=have)
        if have > length:
            self._discard()
            raise WeightsError(
                f"{self._file.url} sends more than the {length:,} bytes expected; "
                f"what came was removed. {_by_hand(self._file, self._folder)}",
                code="weights_corrupt",
            )
        if have < length:
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
            f"The disk is full: {folder} has no room for {file.identity}. Free some space{other}."
        )
    return WeightsError(
        f"{file.name} cannot be kept in {folder} ({error.strerror or error}): make the folder "
        f"writable{other}."
    )


def _problem(file: WeightsFile, path: Path) -> str | None:
    """Why a file is not the expected one, or None."""
    size = path.stat().st_size
    if file.size_bytes not in (None, size):
        return f"it has {size:,} bytes instead of {file.size_bytes:,}"
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return None if digest.startswith(file.sha256) else f"its sha256 is {digest}"
