"""A throw-away PostgreSQL server on this machine's loopback, for the tests that want one.

    python -m tests.postgres pytest tests/bot/store

runs a command with TEST_POSTGRES_URL naming the server, and takes the server away afterwards; the
exit code is the command's. Knows nothing about what the tests do with it.
"""

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

# Nothing of it outlives the tests, so that nothing need be safe from a power cut.
_HASTE = ("fsync=off", "full_page_writes=off", "synchronous_commit=off")
_OWNER = "postgres"


class NoServer(Exception):
    """There is no PostgreSQL here, or it does not start; the message says what to do."""


@contextmanager
def server() -> Iterator[str]:
    """A server as long as the block lasts; yields the URL of its database.

    Raises:
        NoServer: see there.
    """
    programs = _programs()
    folder = Path(tempfile.mkdtemp(prefix="face-matcher-postgres-"))
    # The server refuses to run as root.
    prefix: tuple[str, ...] = ()
    if os.geteuid() == 0:
        owner = pwd.getpwnam(_OWNER)
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        prefix = ("runuser", "-u", _OWNER, "--")
    password = secrets.token_hex(16)
    try:
        secret = folder / "password"
        secret.write_text(password)
        secret.chmod(0o644)  # the folder is its owner's alone
        data = folder / "data"
        _run(
            (
                *(*prefix, str(programs / "initdb"), "-D", str(data), "-U", _OWNER),
                *("--auth=scram-sha-256", f"--pwfile={secret}", "--no-sync", "-E", "UTF8"),
            )
        )
        port = _free_port()
        options = f"-p {port} -c listen_addresses=127.0.0.1 -k {folder}"
        options += "".join(f" -c {each}" for each in _HASTE)
        control = (*prefix, str(programs / "pg_ctl"), "-D", str(data))
        _run((*control, "-w", "-t", "60", "-l", str(folder / "log"), "-o", options, "start"))
        try:
            yield f"postgresql://{_OWNER}:{password}@127.0.0.1:{port}/postgres"
        finally:
            _run((*control, "-w", "-m", "immediate", "stop"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path:
    """The newest server's programs, which Debian keeps out of the PATH."""
    versions = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = max(versions, key=lambda path: int(path.parts[-3]), default=None)
    found = newest or shutil.which("initdb")
    if found is None:
        raise NoServer("there is no PostgreSQL here: apt-get install postgresql")
    return Path(found).parent


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _run(command: Sequence[str]) -> None:
    # Not through a pipe: the server would keep it open.
    with tempfile.TemporaryFile() as said:
        ended = subprocess.run(command, stdout=said, stderr=said, check=False, cwd="/")
        if ended.returncode != 0:
            said.seek(0)
            raise NoServer(f"{command[-1]} failed: {said.read().decode(errors='replace')}")


def main(command: Sequence[str]) -> int:
    """Run a command beside a server; returns its exit code."""
    # Whoever ends this ends the server as well.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    with server() as url:
        environment = {**os.environ, "TEST_POSTGRES_URL": url}
        return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
