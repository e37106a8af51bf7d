"""What a bundle is made from, as an operator gives it: photos, a list of people, and strangers.

Prepares folders and merges them; knows nothing about what is learned.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from training.datasets import people, prepare
from training.datasets.data import Faces
from training.datasets.people import Listed
from training.tools import Tools


@dataclass(frozen=True)
class Given:
    """What a bundle is made from.

    Attributes:
        faces: of the gallery's people.
        strangers: faces of people outside it; None where none were given.
        listed: the list of people; empty where none was given.
    """

    faces: Faces
    strangers: Faces | None
    listed: tuple[Listed, ...]


def read(
    sources: Sequence[Path],
    listed: Path | None,
    strangers: Sequence[Path] | None,
    tools: Tools,
    *,
    aligned: bool,
) -> Given:
    """Prepare what was given, merge it, and tell strangers from the gallery's people.

    Args:
        sources: folders of people, or manifests.
        listed: a list of people, see `training.datasets.people.read`.
        strangers: folders of people, or manifests.
        tools: what sees.
        aligned: the files of folders are crops on the ArcFace template.

    Raises:
        ValueError: nobody is left, or the list is not as it should be.
        OSError: something cannot be read or written.
    """
    chosen = people.read(listed) if listed else None
    prepared: dict[Path, Faces] = {}

    def one(source: Path) -> Faces:
        place = source.resolve()
        if place not in prepared:
            prepared[place] = prepare.dataset(source, tools, aligned=aligned)
        return prepared[place]

    faces = people.merged([one(source) for source in sources], chosen)
    if not strangers:
        return Given(faces, None, tuple(chosen or ()))
    shown = set(faces.people)
    known = [*faces.people] + [
        folder for person in chosen or () if person.name in shown for folder in person.folders
    ]
    outside = people.strangers([one(source) for source in strangers], known)
    return Given(faces, outside, tuple(chosen or ()))
