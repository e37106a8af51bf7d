"""An installation of some of pyproject.toml's dependency groups, acted out with this environment.

What the groups do not bring along is hidden from a process, as if it had never been installed.
"""

import os
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import packages_distributions, requires
from pathlib import Path
from typing import Any

from packaging.dependency_groups import resolve_dependency_groups
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]

_HIDING = """
import sys
from importlib.machinery import PathFinder

class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            return None
        return super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Finder
"""


@cache
def pyproject() -> Mapping[str, Any]:
    """What pyproject.toml says."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def direct(*groups: str) -> frozenset[Requirement]:
    """What pyproject.toml asks for: what all parts share, and these groups."""
    shared = pyproject()["project"]["dependencies"]
    more = resolve_dependency_groups(pyproject()["dependency-groups"], *groups)
    return frozenset(map(Requirement, (*shared, *more)))


def all_groups() -> tuple[str, ...]:
    return tuple(pyproject()["dependency-groups"])


def packages(*groups: str) -> set[str]:
    """Normalised names of all packages that an installation of these groups has."""
    waiting = [(name, extra) for name, extra in map(_wanted, direct(*groups)) for extra in extra]
    seen = set()
    while waiting:
        package, extra = waiting.pop()
        if (package, extra) in seen:
            continue
        seen.add((package, extra))
        for requirement in map(Requirement, requires(package) or ()):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                name, extras = _wanted(requirement)
                waiting += [(name, each) for each in extras]
    return {package for package, _ in seen}


def _wanted(requirement: Requirement) -> tuple[str, Iterable[str]]:
    """A package, and its extras; the empty one is the package itself."""
    return canonicalize_name(requirement.name), ("", *requirement.extras)


@cache
def hidden(*groups: str) -> frozenset[str]:
    """Import names that an installation of these groups lacks."""
    there = packages(*groups)
    return frozenset(
        module
        for module, distributions in packages_distributions().items()
        if not there & set(map(canonicalize_name, distributions))
    )


def environment(folder: Path, *groups: str) -> dict[str, str]:
    """Environment variables of a process that sees these groups' packages alone.

    The folder is for what its Python reads first.
    """
    program = _HIDING.replace("{absent!r}", repr(set(hidden(*groups))))
    (folder / "sitecustomize.py").write_text(program)
    return os.environ | {"PYTHONPATH": str(folder)}
