"""Each dependency group of pyproject.toml is enough for its part, and has nothing of another's."""

import asyncio
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import skimage.data
from PIL import Image

from bot.sandbox import Sandbox
from bot.store import add_key
from engine import __version__
from tests import installed
from tests.processes import ROOT, running

PATIENCE_S = 120.0
KEY = "the-key-of-this-test"

IMPORT_ALL = """
import importlib, pkgutil, sys
for package in sys.argv[1].split(","):
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        if not module.name.startswith(tuple(sys.argv[2].split(","))):
            importlib.import_module(module.name)
"""
CLIP_MAKERS = ("bot.sandbox.acting", "bot.sandbox.performer", "bot.sandbox.rehearsal")
"""What makes clips of a photo on the chat page; only group `demo` is enough for it."""


def python(*words: str, environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


def test_the_version_is_one() -> None:
    assert f'\nversion = "{__version__}"\n' in (ROOT / "pyproject.toml").read_text()
    assert f"\n## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_without_a_choice_everything_is_installed() -> None:
    """The README's first command is for everybody, testers included."""
    chosen = installed.pyproject()["tool"]["uv"]["default-groups"]
    assert installed.packages(*chosen) == installed.packages(*installed.all_groups())


def test_no_part_brings_along_what_is_anothers() -> None:
    bot, engine = installed.packages("bot"), installed.packages("engine")
    assert {"python-telegram-bot", "sqlalchemy"} <= bot - engine
    assert {"torch", "torchvision", "facenet-pytorch", "onnxruntime", "av"} <= engine - bot
    assert not {"pytorch-lightning", "scikit-learn", "ray", "pytest"} & (bot | engine)
    assert installed.packages("demo") == bot | engine | {"scipy"}
    assert not {"python-telegram-bot", "sqlalchemy", "pytest"} & installed.packages("training")


@pytest.mark.parametrize(
    ("group", "imported", "but"),
    [
        ("bot", "bot,engine.remote", CLIP_MAKERS),
        ("engine", "engine", ("engine.cluster",)),  # an extra of its own: Ray
        ("demo", "bot", ("nothing",)),
        ("training", "training", ("nothing",)),
    ],
)
def test_a_group_has_all_that_its_code_imports(
    tmp_path: Path, group: str, imported: str, but: tuple[str, ...]
) -> None:
    environ = installed.environment(tmp_path, group)
    done = python("-c", IMPORT_ALL, imported, ",".join(("x.__main__", *but)), environ=environ)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("group", "command"),
    [
        ("bot", "bot run --help"),
        ("training", "training card celebrities"),
    ],
)
def test_the_commands_run(tmp_path: Path, group: str, command: str) -> None:
    done = python("-m", *command.split(), environ=installed.environment(tmp_path, group))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("command", ["run", "demo"])
def test_a_bot_without_an_engine_says_what_is_missing(tmp_path: Path, command: str) -> None:
    environ = installed.environment(tmp_path, "bot") | {"BOT_TOKEN": "1:a", "FACE_LOGIN": "false"}
    environ.pop("ENGINE_URL", None)
    done = python("-m", "bot", command, environ=environ)
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert "ENGINE_URL" in done.stderr
    assert "uv sync --no-default-groups --group demo" in " ".join(done.stderr.split())


def test_the_chat_page_says_what_its_clips_need(tmp_path: Path) -> None:
    environ = installed.environment(tmp_path, "bot") | {"ENGINE_URL": "unix:/nowhere"}
    done = python("-m", "bot", "demo", environ=environ)
    assert done.returncode == 1
    assert "uv sync --no-default-groups --group demo" in " ".join(done.stderr.split())


def astronaut(folder: Path) -> bytes:
    path = folder / "astronaut.jpg"
    Image.fromarray(skimage.data.astronaut()).save(path, quality=95)
    return path.read_bytes()


async def test_a_bot_and_an_engine_installed_apart_answer_a_photo(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("bot", "engine")}
    for folder in folders.values():
        folder.mkdir()
    environ = {name: installed.environment(folder, name) for name, folder in folders.items()}
    keys, socket = tmp_path / "template.keys", tmp_path / "engine.sock"
    add_key(keys)
    serving = running(
        *(tmp_path / "engine.log", environ["engine"], "engine", "serve", "--device", "cpu"),
        ENGINE_SOCKET=str(socket),
        ENGINE_API_KEY=KEY,
    )
    async with Sandbox() as sandbox, serving as engine:
        assert engine.stdout is not None
        line = await asyncio.wait_for(engine.stdout.readline(), PATIENCE_S)
        assert line.decode() == f"The engine listens on unix:{socket}\n"
        async with running(
            *(tmp_path / "bot.log", environ["bot"], "bot", "run"),
            BOT_TOKEN=sandbox.token,
            TELEGRAM_API_URL=sandbox.url,
            DATABASE=str(tmp_path / "bot.db"),
            IDS_KEY=str(tmp_path / "ids.key"),
            TEMPLATE_KEYS_FILE=str(keys),
            ENGINE_URL=f"unix:{socket}",
            ENGINE_API_KEY=KEY,
        ) as bot:
            ana = sandbox.person("ana")
            await ana.send_photo(astronaut(tmp_path))
            reply = await ana.reply(timeout_s=PATIENCE_S)
            assert reply.photo, (tmp_path / "bot.log").read_text()
            bot.terminate()
            assert await bot.wait() == 0
