"""What the documents name is there: commands with their options, files, headings."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from bot.__main__ import main as bot
from engine.__main__ import app as engine
from training.__main__ import app as training

ROOT = Path(__file__).parents[1]
PLACES = (".", "bot", "engine", "training", "run", "tests/benchmarks")
DOCUMENTS = [path for place in PLACES for path in sorted((ROOT / place).glob("*.md"))]
COMMANDS: dict[str, Any] = {
    name: typer.main.get_command(app)
    for name, app in (("bot", bot), ("engine", engine), ("training", training))
}
HISTORY = ROOT / "CHANGELOG.md"
"""It names what is gone, too."""
HOSTS = {"127.0.0.1", "host", "t.me", "api.telegram.org", "keepachangelog.com", "semver.org"}

each_document = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT))
)


def commands(text: str) -> Iterator[list[str]]:
    """The words of every command that is shown whole: in a block, or between backticks."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    lines += [" ".join(each.split()) for each in re.findall(r"`([^`]+)`", prose)]
    for line in lines:
        found = re.search(r"python -m (?=bot|engine|training|tests)(.*)", line)
        if found:
            yield shlex.split(found[1], comments=True)


def unknown(words: list[str]) -> str | None:
    """What of a command is not there."""
    program, *rest = words
    if program.startswith("tests"):
        path = ROOT / program.replace(".", "/")
        there = path.with_suffix(".py").exists() or (path / "__main__.py").exists()
        return None if there else program
    command = COMMANDS.get(program)
    if command is None:
        return program
    while rest and hasattr(command, "commands") and not rest[0].startswith("-"):
        name = rest.pop(0)
        if name not in command.commands:
            return name
        command = command.commands[name]
    known = {option for parameter in command.params for option in parameter.opts}
    known |= {option for parameter in command.params for option in parameter.secondary_opts}
    known.add("--help")
    return next((w for w in rest if w.startswith("--") and w.split("=")[0] not in known), None)


@pytest.mark.parametrize(
    "document",
    [path for path in DOCUMENTS if path != HISTORY],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_its_commands_are_there(document: Path) -> None:
    shown = list(commands(document.read_text("utf-8")))
    assert not {" ".join(words): missing for words in shown if (missing := unknown(words))}


def test_commands_are_found_in_documents_and_what_is_wrong_is_seen() -> None:
    shown = list(commands((ROOT / "README.md").read_text("utf-8")))
    assert ["bot", "demo"] in shown
    assert len(shown) > 8
    assert unknown(["bot", "dmeo"]) == "dmeo"
    assert unknown(["engine", "serve", "--prot", "1"]) == "--prot"
    assert unknown(["tests.benchmarks.nothing"]) == "tests.benchmarks.nothing"


def anchors(document: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", document.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@each_document
def test_its_links_lead_somewhere(document: Path) -> None:
    text = document.read_text("utf-8")
    targets = re.findall(r"\]\((?!https?://|<)([^)#]*)(?:#([^)]*))?\)", text)
    for path, anchor in targets:
        target = document.parent / path if path else document
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), f"{path}#{anchor}"


def test_the_first_page_is_short_and_says_the_same_in_two_languages() -> None:
    english, spanish = (ROOT / "README.md"), (ROOT / "README.es.md")
    assert max(english.stat().st_size, spanish.stat().st_size) <= 6000

    def shape(document: Path) -> tuple[int, int, set[str]]:
        text = document.read_text("utf-8")
        links = set(re.findall(r"\]\(([^)]*)\)", text)) - {"README.md", "README.es.md"}
        return text.count("\n## "), text.count("\n```sh"), links

    assert shape(english) == shape(spanish)


@each_document
def test_it_sends_nobody_to_another_host(document: Path) -> None:
    """Package registries least of all: the clients know theirs."""
    hosts = set(re.findall(r"https?://([^/)`>\s\":']+)", document.read_text("utf-8")))
    assert hosts <= HOSTS
