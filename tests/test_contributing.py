"""CONTRIBUTING.md's map has every package, and nothing that is not there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_map_has_every_package() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    told = set(re.findall(r"^\| `([a-z/]+)` \|", text, re.MULTILINE))
    inner = {"engine/vision/embed", "bot/store/migrations", "bot/store/migrations/versions"}
    packages = {
        str(path.parent.relative_to(ROOT))
        for top in ("bot", "engine", "training")
        for path in (ROOT / top).rglob("*.py")
    }
    assert told == packages - inner


def test_the_files_that_it_names_are_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    rows = re.findall(r"^\| `([a-z/]+)` \| (.*) \|$", text, re.MULTILINE)
    named = [(home, name) for home, what in rows for name in re.findall(r"`(\w+\.py)`", what)]
    named += [(".", path) for path in re.findall(r"`([a-z]+/[\w/]+\.py)`", text)]
    assert len(named) > 10
    assert not [pair for pair in named if not (ROOT / pair[0] / pair[1]).is_file()]
