"""What comes from others: looked up for vulnerabilities, listed, and named with its licence."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from threading import Thread

import pytest
import yaml
from packaging.utils import canonicalize_name

from tests import installed

ROOT = Path(__file__).parents[1]
CI = (ROOT / ".ci" / "run").read_text()
HOOKS = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
CONTROL = ("jinja2", "2.4.1")

DIRECT = sorted({canonicalize_name(each.name) for each in installed.direct("demo", "training")})
SHIPPED = sorted({*DIRECT, "ray"})
"""Ray is an extra, for clusters."""


# --- .ci/audit.py ---


@contextmanager
def advisories(known: Mapping[tuple[str, str], str]) -> Iterator[str]:
    """A service that answers as OSV's does; its address.

    Args:
        known: package and version to a vulnerability's id.
    """

    class Query(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            package = asked["package"]
            found = known.get((package["name"], asked["version"]))
            events = [{"introduced": "0"}, {"fixed": "999"}]
            affected = {"package": package, "ranges": [{"type": "ECOSYSTEM", "events": events}]}
            vulnerability = {"id": found, "details": "x", "aliases": [], "affected": [affected]}
            body = json.dumps({"vulns": [vulnerability]} if found else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_request(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Query) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1/query"
        finally:
            server.shutdown()
            thread.join()


def audit(url: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run .ci/audit.py against a service, keeping nothing of its answers."""
    command = [
        sys.executable,
        ".ci/audit.py",
        "--osv-url",
        url,
        "--cache-dir",
        str(folder),
        *options,
    ]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)


def test_a_vulnerable_package_fails_the_run(tmp_path: Path) -> None:
    known = {CONTROL: "TEST-2010-1", ("numpy", version("numpy")): "TEST-2026-2"}
    with advisories(known) as url:
        done = audit(url, tmp_path)
    assert done.returncode == 1, done.stderr
    assert f"numpy {version('numpy')}: TEST-2026-2, fixed in 999" in done.stdout
    looked_up, vulnerable = map(int, re.findall(r"(\d+) (?:packages|of them)", done.stdout))
    assert vulnerable == 1
    assert looked_up >= len(DIRECT)


def test_an_environment_without_any_passes(tmp_path: Path) -> None:
    with advisories({CONTROL: "TEST-2010-1"}) as url:
        done = audit(url, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "0 of them vulnerable" in done.stdout


def test_a_service_out_of_reach_is_told(tmp_path: Path) -> None:
    done = audit("http://127.0.0.1:9/v1/query", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "SKIPPED" in done.stdout


def test_a_service_that_knows_nothing_is_no_answer(tmp_path: Path) -> None:
    with advisories({}) as url:
        done = audit(url, tmp_path)
    assert done.returncode == 0
    assert "SKIPPED" in done.stdout


def test_an_audit_that_cannot_run_fails(tmp_path: Path) -> None:
    assert audit("http://127.0.0.1:9/v1/query", tmp_path, "--no-such-option").returncode == 1


# --- .pre-commit-config.yaml ---


def test_each_hook_stands_in_the_whole_run_too() -> None:
    assert {hook["id"] for hook in HOOKS} >= {"ruff", "ruff-format", "mypy", "imports", "audit"}
    for hook in HOOKS:
        assert hook["language"] == "system"  # the versions of `uv sync`, of no other environment
        assert hook["pass_filenames"] is False
        assert f"\n{hook['entry']}\n" in CI


def test_the_hooks_are_what_pre_commit_reads() -> None:
    command = [sys.executable, "-m", "pre_commit", "validate-config", ".pre-commit-config.yaml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# --- The bill of materials, and run/NOTICE.md ---


def test_the_bill_of_materials_lists_what_is_asked_for(tmp_path: Path) -> None:
    (command,) = re.findall(
        r"^uv export .*cyclonedx.*$", (ROOT / "run/README.md").read_text(), re.M
    )
    program = os.environ.get("UV") or shutil.which("uv")
    if program is None or not (ROOT / "uv.lock").exists():
        pytest.skip("uv or its uv.lock is not here: `uv lock`")
    # What the document says, but for one file, and without asking the network for newer packages.
    words = command.replace("uv export", f"{program} export --frozen", 1).split()
    words[words.index("-o") + 1] = str(tmp_path / "bom.json")
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    bill = json.loads((tmp_path / "bom.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    # Another Python may take another version, and has a line of its own.
    listed = {(part["name"], part["version"]) for part in bill["components"]}
    group = words[words.index("--group") + 1]
    asked = {canonicalize_name(each.name) for each in installed.direct(group)}
    assert {(name, version(name)) for name in asked} <= listed
    assert not {"pytest", "mypy", "pytorch-lightning"} & {name for name, _ in listed}


NOTICE = (ROOT / "run" / "NOTICE.md").read_text()
ROWS = dict(re.findall(r"^\| `([\w-]+)` \| ([^|]+) \|", NOTICE, re.MULTILINE))


def test_every_package_is_named_with_its_licence() -> None:
    assert sorted(ROWS) == SHIPPED
    assert all(ROWS.values())


@pytest.mark.parametrize(
    "part", ["python-telegram-bot", "FFmpeg", "x264", "x265", "libheif", "libde265", "libseccomp"]
)
def test_the_copyleft_parts_are_told(part: str) -> None:
    copyleft = NOTICE.split("## Copyleft")[1]
    assert re.search(rf"{part}.*L?GPL", copyleft)
