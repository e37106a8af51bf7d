"""What a confined process can no longer do."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from engine.media import confinement

FILE = Path(confinement.__file__)

_TRY = """
import importlib.util, json, os, socket, subprocess, sys, threading
spec = importlib.util.spec_from_file_location("confinement", sys.argv[1])
confinement = importlib.util.module_from_spec(spec)
spec.loader.exec_module(confinement)
confinement.limit(2**33, 60)
in_force = confinement.close()
tried = {
    "open": lambda: open("/etc/hostname"),
    "socket": lambda: socket.socket(),
    "fork": os.fork,
    "exec": lambda: os.execv("/bin/true", ["true"]),
    "kill": lambda: os.kill(os.getppid(), 0),
    "thread": lambda: threading.Thread(target=int).start(),
    "environment of the parent": lambda: open(f"/proc/{os.getppid()}/environ"),
}
outcome = {}
for name, act in tried.items():
    try:
        act()
        outcome[name] = "done"
    except (OSError, RuntimeError) as error:
        outcome[name] = type(error).__name__
sys.stdout.write(json.dumps([in_force, outcome]))
sys.stdout.flush()
"""


def tried() -> tuple[list[str], dict[str, str]]:
    child = subprocess.run(
        [sys.executable, "-I", "-c", _TRY, str(FILE)], capture_output=True, text=True, check=True
    )
    in_force, outcome = json.loads(child.stdout)
    return in_force, outcome


def test_a_confined_process_opens_nothing() -> None:
    _, outcome = tried()
    assert outcome["open"] != "done"
    assert outcome["socket"] != "done"
    assert outcome["environment of the parent"] != "done"


def test_with_seccomp_it_starts_and_signals_nobody() -> None:
    in_force, outcome = tried()
    if "seccomp" not in in_force:
        pytest.skip("libseccomp is not installed, or the kernel has no seccomp")
    assert "no-new-privileges" in in_force
    assert outcome.pop("thread") == "done"  # libheif needs one
    assert "done" not in outcome.values(), outcome


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux")
def test_memory_is_kept_from_others_of_the_same_user() -> None:
    script = (
        "import importlib.util, sys\n"
        "spec = importlib.util.spec_from_file_location('confinement', sys.argv[1])\n"
        "confinement = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(confinement)\n"
        "assert confinement.keep_memory_private()\n"
        "import ctypes\n"
        "print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))\n"  # PR_GET_DUMPABLE
    )
    child = subprocess.run(
        [sys.executable, "-I", "-c", script, str(FILE)], capture_output=True, text=True, check=True
    )
    assert child.stdout.strip() == "0"
