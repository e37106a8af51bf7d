"""People of a gallery bundle come and go, without building it again.

Knows how a bundle's parts change together; knows nothing about the command line. The centre stays
as it is: it is a mean over everybody, and another one would change everybody's similarities. So
does the calibration, which was measured before the change: `calibration.source` then names the
bundle as it was, and for more people than it holds for the figures are scaled
(`training.measure.calibration.scaled`). Metrics of held-out photos are dropped: they were other
people's.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from engine import bundle, locks
from engine.bundle import AboutRecord, Bundle, Calibration
from engine.errors import BundleError, ImageError
from engine.media.decoder_pool import PhotoDecoders
from engine.people.gallery import Gallery, best_per_person
from engine.people.scoring import thumbnails
from engine.vision import align, embed
from engine.vision.align import ARCFACE_TEMPLATE
from engine.vision.detect import Detections
from engine.vision.faces import cut_faces
from training.bundles.gallery import CALIBRATED_FOR, cluster_count, jpeg, packed, prototypes, tally
from training.console import Advance, full_disk, say, silent
from training.datasets import registration, twins
from training.datasets.audit import LEAST_ALIKE, FaceLimits
from training.datasets.journal import GREY_PX
from training.datasets.photos import person_of
from training.datasets.pictures import grey
from training.fit import recipes
from training.fit.fitting import Machine
from training.fit.recipes import Recipe
from training.measure.calibration import scaled
from training.tools import Tools
from training.vectors import Vectors, unit

_CHIP = ARCFACE_TEMPLATE
_ROUNDS = 3
_STEP = 8
_STAND_FOR = 8
"""How often a direction stands in for the faces that it was trained on."""


@dataclass(frozen=True)
class LeftOut:
    """A photo that was not used, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Addition:
    """What became of photos that were added.

    Attributes:
        bundle: as it is now.
        person: whom they were added to.
        new: whether the bundle did not know the person.
        faces: how many were taken.
        left_out: the other photos.
        doubts: what the operator should look at, in sentences.
    """

    bundle: Bundle
    person: str
    new: bool
    faces: int
    left_out: Sequence[LeftOut]
    doubts: Sequence[str]


@dataclass(frozen=True)
class _Candidates:
    """The usable faces of one photo."""

    path: Path
    vectors: Vectors
    """(k, d) unit embeddings."""
    chips: NDArray[np.uint8]
    """(k, 112, 112, 3) RGB on the ArcFace template."""
    areas: NDArray[np.float64]


@dataclass(frozen=True)
class _Chosen:
    """One face a photo, centred."""

    paths: Sequence[Path]
    vectors: Vectors
    chips: Sequence[NDArray[np.uint8]]

    def part(self, index: NDArray[np.int64]) -> "_Chosen":
        return _Chosen(
            [self.paths[i] for i in index], self.vectors[index], [self.chips[i] for i in index]
        )


def add(
    name: str,
    photos: Sequence[Path],
    to: Path,
    tools_for: Callable[[str], Tools],
    *,
    created: str,
    aligned: bool = False,
    trust: bool = False,
    advance: Advance = silent,
) -> Addition:
    """Add a person to a gallery bundle, or more photos of somebody it knows.

    Of several faces on a photo the one is taken that agrees with the other photos, or with what the
    bundle knows of the person. Photos without a usable face, near copies and faces that look more
    like somebody else in the bundle are left out.

    More photos move the person's prototypes: each face goes to the closest, which becomes the mean
    of what it stood for and of the new ones; where the person now has photos enough for another
    prototype (`training.bundles.gallery.cluster_count`), the new faces are it.

    Args:
        name: the person's.
        photos: files.
        to: the bundle's path without suffix.
        tools_for: the tools of an embedder, by its id.
        created: the date to write into the bundle.
        aligned: the files are crops on the ArcFace template already.
        trust: nothing is left out for looking like somebody else.
        advance: told how many photos were seen.

    Raises:
        ValueError: no face can be used, or the bundle is none to add to.
        BundleError: the bundle cannot be read, or its embedder here is another one.
    """
    person = _name(name)
    with _alone(to):
        old = _gallery(to, "add people to")
        tools = tools_for(old.embedder.id)
        form = tools.embedder.specification
        old.require_made_with(form.id, form.weights_sha256)
        names = _names(old)
        index = names.index(person) if person in names else None
        if index is not None and "counts" not in old.tensors:
            raise ValueError(
                f"{old.name} does not say how many photos each person's prototypes stand for, so "
                f"none can be added to {person}. Build it again with `python -m training gallery`."
            )
        candidates, left_out = _see(photos, tools, aligned, advance)
        chosen = _choose(candidates, old, index)
        kept = _without_copies(chosen, left_out)
        if not trust:
            kept = _without_others(kept, old, index, left_out)
        if not kept.paths:
            reasons = "; ".join(f"{entry.path}: {entry.reason}" for entry in left_out)
            raise ValueError(f"no photo of {person} can be used, nothing was changed ({reasons})")
        doubts = _doubts(kept, old, index, person)
        tensors = _grown(old, kept, index)
        people = names if index is not None else [*names, person]
        dataset = old.manifest.dataset
        dropped = Counter(dataset.dropped) + Counter(added=len(left_out))
        record = dataset.model_copy(
            update={
                "people": len(people),
                "photos": dataset.photos + len(photos),
                "faces": dataset.faces + len(kept.paths),
                "dropped": dict(sorted(dropped.items())),
            }
        )
        written = _save(to, old, people, tensors, record.model_dump(), created)
    return Addition(written, person, index is None, len(kept.paths), left_out, doubts)


def remove(name: str, out_of: Path, *, created: str) -> Bundle:
    """Remove a person from a gallery bundle: name, prototypes and thumbnail.

    What stays is the share they had in means over everybody: the centre, and the calibration.

    Args:
        name: the person's.
        out_of: the bundle's path without suffix.
        created: the date to write into the bundle.

    Raises:
        ValueError: the bundle does not know them, knows nobody else, or is none to remove from.
        BundleError: the bundle cannot be read.
    """
    person = _name(name)
    with _alone(out_of):
        old = _gallery(out_of, "remove people from")
        names = _names(old)
        if person not in names:
            close = [known for known in names if person.casefold() in known.casefold()]
            hint = f" Did you mean {' or '.join(close[:3])}?" if close else ""
            raise ValueError(f"{old.name} does not know {person}.{hint}")
        if len(names) == 1:
            raise ValueError(
                f"{person} is the only person of {old.name}. Delete {out_of}.pth and "
                f"{out_of}.json instead."
            )
        index = names.index(person)
        owner = old.tensors["owner"]
        stay = owner != index
        tensors = dict(old.tensors)
        for key in ("prototypes", "owner", "counts", "lengths"):
            if key in tensors:
                tensors[key] = tensors[key][stay]
        tensors["owner"] = tensors["owner"] - (tensors["owner"] > index).long()
        pictures = list(thumbnails(old) or ())
        if pictures:
            tensors |= packed(pictures[:index] + pictures[index + 1 :])
        dataset = old.manifest.dataset
        gone = int(old.tensors["counts"][~stay].sum()) if "counts" in old.tensors else 0
        record = dataset.model_copy(
            update={
                "people": len(names) - 1,
                "photos": max(0, dataset.photos - gone),
                "faces": max(0, dataset.faces - gone),
            }
        )
        people = [known for known in names if known != person]
        return _save(out_of, old, people, tensors, record.model_dump(), created)


# --- The bundle's files ---


@contextmanager
def _alone(stem: Path) -> Iterator[None]:
    """Two changes at the same time would lose one of them."""
    waiting = partial(say, f"Another command is changing {stem.name}; waiting for it.")
    full = f"The disk is full: {stem} was not changed. Make room and try again."
    with full_disk(full), ExitStack() as stack:
        if stem.parent.is_dir():  # else loading will say so
            stack.enter_context(locks.alone(stem.parent / f".{stem.name}.lock", waiting))
        yield


def _gallery(stem: Path, purpose: str) -> Bundle:
    found = bundle.load(stem)
    if "network" in found.manifest.architecture:
        raise ValueError(
            f"{found.name} has a network of its own that was trained for its people: there is none "
            f"to {purpose}. Change its dataset and train it again with `python -m training "
            "classifier`, or build a gallery of the same dataset with `python -m training gallery`."
        )
    if found.manifest.kind == "vectorizer":
        raise ValueError(
            f"{found.name} is a vectorizer and knows nobody. Build a gallery with it: `python -m "
            f"training gallery DIR --embedder trained:{found.name} --out run/models/NAME`."
        )
    Gallery(found, torch.device("cpu"))
    if "counts" in found.tensors and not _counts_fit(found):
        raise BundleError(
            f"{found.name}'s counts do not fit its prototypes. Build the bundle again."
        )
    return found


def _counts_fit(found: Bundle) -> bool:
    owner, counts = found.tensors["owner"], found.tensors["counts"]
    lengths = found.tensors.get("lengths")
    return (
        counts.shape == owner.shape
        and counts.dtype == torch.int64
        and bool((counts >= 0).all())
        and lengths is not None
        and lengths.shape == owner.shape
        and lengths.dtype == torch.float32
    )


def _names(old: Bundle) -> list[str]:
    return [old.manifest.people[i] for i in range(len(old.manifest.people))]


def _save(
    stem: Path,
    old: Bundle,
    people: Sequence[str],
    tensors: dict[str, torch.Tensor],
    dataset: dict[str, Any],
    created: str,
) -> Bundle:
    record = old.manifest.model_dump(exclude={"format", "preprocessing", "pth_sha256"})
    calibration, holds_for = _carried_over(old, people)
    record |= {
        "created": created,
        "people": dict(enumerate(people)),
        "about": _about(old, people),
        "architecture": old.manifest.architecture
        | {"prototypes": len(tensors["owner"]), CALIBRATED_FOR: holds_for},
        "calibration": calibration,
        "metrics": {},
        "dataset": dataset,
    }
    return bundle.save(stem, record, tensors)


def _about(old: Bundle, people: Sequence[str]) -> dict[int, AboutRecord]:
    """What is said about people, under their new numbers."""
    said = {old.manifest.people[i]: about for i, about in old.manifest.about.items()}
    return {i: said[name] for i, name in enumerate(people) if name in said}


def _carried_over(old: Bundle, people: Sequence[str]) -> tuple[Calibration, int]:
    """The calibration for these people, and for how many it holds."""
    theirs = old.calibration
    # A bundle that does not say was built before people could be added: its figures hold for all.
    said = old.manifest.architecture.get(CALIBRATED_FOR)
    holds_for = said if type(said) is int and said > 0 else len(old.manifest.people)
    source = old.id if theirs.source.startswith("own") else theirs.source
    carried = scaled(theirs, holds_for, len(people)).model_copy(update={"source": source})
    number = {name: i for i, name in enumerate(people)}
    floors = {
        number[old.manifest.people[i]]: max(floor, carried.identification.threshold)
        for i, floor in theirs.floors.items()
        if old.manifest.people.get(i) in number
    }
    return carried.model_copy(update={"floors": floors}), max(holds_for, len(people))


# --- The photos ---


def _see(
    photos: Sequence[Path], tools: Tools, aligned: bool, advance: Advance
) -> tuple[list[_Candidates], list[LeftOut]]:
    found: list[_Candidates] = []
    left_out: list[LeftOut] = []
    for opened in _opened(photos, left_out):
        detections = tools.find([picture for _, picture in opened], aligned=aligned)
        for (path, picture), faces in zip(opened, detections, strict=True):
            candidates = _candidates(path, picture, faces, tools)
            if isinstance(candidates, LeftOut):
                left_out.append(candidates)
            else:
                found.append(candidates)
        advance(len(found) + len(left_out))
    return found, left_out


def _opened(
    photos: Sequence[Path], left_out: list[LeftOut]
) -> Iterator[list[tuple[Path, Image.Image]]]:
    """Some decoded photos at a time; those that cannot be are added to `left_out`."""
    with PhotoDecoders(1) as decoders:
        for start in range(0, len(photos), _STEP):
            opened: list[tuple[Path, Image.Image]] = []
            for path in photos[start : start + _STEP]:
                try:
                    opened.append((path, decoders.open(path.read_bytes()).image))
                except ImageError as error:
                    left_out.append(LeftOut(path, error.message))
                except OSError as error:
                    left_out.append(LeftOut(path, f"it could not be read: {error.strerror}"))
            yield opened


def _candidates(
    path: Path, picture: Image.Image, found: Detections, tools: Tools
) -> _Candidates | LeftOut:
    limits = FaceLimits()
    template = tools.embedder.specification.template
    crops, chips, areas = [], [], []
    for face in cut_faces(picture, found, picture.size, template):
        if face.quality.size_px >= limits.size_px and face.quality.blur <= limits.blur:
            x1, y1, x2, y2 = face.box
            crops.append(face.crop)
            chips.append(align.cut(picture, face.landmarks, _CHIP))
            areas.append((x2 - x1) * (y2 - y1))
    if not crops:
        reason = "its faces are too small or too blurred" if len(found) else "no face was found"
        return LeftOut(path, reason)
    vectors = embed.embed_crops(tools.embedder, np.stack(crops)).cpu().numpy()
    return _Candidates(path, vectors, np.stack(chips), np.array(areas))


def _choose(candidates: Sequence[_Candidates], old: Bundle, index: int | None) -> _Chosen:
    """Of each photo the face that agrees with the person, or with the other photos."""
    centre = old.tensors["centre"].numpy()
    centred = [unit(photo.vectors - centre) for photo in candidates]
    chosen = [int(photo.areas.argmax()) for photo in candidates]
    if index is not None:
        own = old.tensors["prototypes"][old.tensors["owner"] == index].numpy()
        chosen = [int((faces @ own.T).max(axis=1).argmax()) for faces in centred]
    elif candidates:
        # Photos with one face tell who the person is; without any, all the largest faces do.
        clear = [i for i, faces in enumerate(centred) if len(faces) == 1] or list(
            range(len(centred))
        )
        for _ in range(_ROUNDS):
            mean = np.mean([centred[i][chosen[i]] for i in clear], axis=0)
            chosen = [int((faces @ mean).argmax()) for faces in centred]
            clear = list(range(len(centred)))
    dimension = len(centre)
    vectors = [faces[k] for faces, k in zip(centred, chosen, strict=True)]
    return _Chosen(
        [photo.path for photo in candidates],
        np.array(vectors, np.float32).reshape(-1, dimension),
        [photo.chips[k] for photo, k in zip(candidates, chosen, strict=True)],
    )


def _without_copies(chosen: _Chosen, left_out: list[LeftOut]) -> _Chosen:
    if len(chosen.paths) < 2:
        return chosen
    tiny = np.stack([grey(chip, GREY_PX) for chip in chosen.chips])
    pairs = twins.find(chosen.vectors, tiny, LEAST_ALIKE)
    pictures = [registration.grey(chip) for chip in chosen.chips]
    copies: dict[int, int] = {}
    for first, second in sorted(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)):
        if not {first, second} & copies.keys() and registration.same_picture(
            pictures[first], pictures[second]
        ):
            copies[second] = first
    left_out += [
        LeftOut(chosen.paths[copy], f"nearly the same picture as {chosen.paths[other].name}")
        for copy, other in sorted(copies.items())
    ]
    return chosen.part(np.array([i for i in range(len(chosen.paths)) if i not in copies], np.int64))


def _without_others(
    chosen: _Chosen, old: Bundle, index: int | None, left_out: list[LeftOut]
) -> _Chosen:
    """Leave out faces that the bundle calls somebody else and that are less like the person."""
    if not chosen.paths:
        return chosen
    names, threshold = _names(old), old.calibration.identification.threshold
    similarity = _similarities(chosen.vectors, old)
    if index is not None:
        own = similarity[:, index].copy()
        similarity[:, index] = -np.inf
    else:
        # Of a person whom the bundle does not know, the other photos tell.
        rest = chosen.vectors.sum(axis=0) - chosen.vectors
        own = (unit(rest) * chosen.vectors).sum(axis=1)
        if len(chosen.paths) == 1:
            return chosen
    other = similarity.argmax(axis=1)
    strange = similarity.max(axis=1)
    wrong = (strange > own) & (strange >= threshold)
    left_out += [
        LeftOut(
            chosen.paths[i],
            f"looks like {names[other[i]]} ({strange[i]:.2f}), less like the person ({own[i]:.2f})",
        )
        for i in np.flatnonzero(wrong).tolist()
    ]
    return chosen.part(np.flatnonzero(~wrong))


def _doubts(chosen: _Chosen, old: Bundle, index: int | None, person: str) -> list[str]:
    threshold = old.calibration.identification.threshold
    mean = unit(chosen.vectors.mean(axis=0, keepdims=True))
    similarity = _similarities(mean, old)[0]
    doubts = []
    if index is not None:
        own = float(similarity[index])
        if own < threshold:
            doubts.append(
                f"These photos do not look much like those of {person} in the bundle "
                f"(similarity {own:.2f}; sure from {threshold:.2f})."
            )
        similarity[index] = -np.inf
    if similarity.max() >= threshold:
        other = _names(old)[int(similarity.argmax())]
        doubts.append(
            f"These photos look like {other}, who is in the bundle already (similarity "
            f"{similarity.max():.2f}). If they are the same person, `remove` one of the names and "
            "add the photos to the other."
        )
    return doubts


def _similarities(centred: Vectors, old: Bundle) -> Vectors:
    """(n, people) cosines of centred unit vectors."""
    tensors = old.tensors
    similarity: Vectors = best_per_person(
        torch.from_numpy(centred),
        tensors["prototypes"],
        tensors["owner"],
        len(old.manifest.people),
    ).numpy()
    return similarity


def _grown(old: Bundle, chosen: _Chosen, index: int | None) -> dict[str, torch.Tensor]:
    """The bundle's tensors with the faces in them."""
    tensors = dict(old.tensors)
    counted = "counts" in tensors
    if index is None:
        person = len(old.manifest.people)
        made, _ = prototypes(chosen.vectors, np.zeros(len(chosen.paths), np.int64), 1)
        if old.manifest.kind == "classifier":
            made = _trained(old, chosen.vectors, person)
        new = {
            "prototypes": torch.from_numpy(made),
            "owner": torch.full((len(made),), person),
        }
        if counted:
            alone = np.zeros(len(chosen.paths), np.int64)
            new |= tally(chosen.vectors, alone, made, np.zeros(len(made), np.int64))
        tensors |= {key: torch.cat([tensors[key], value]) for key, value in new.items()}
        pictures = list(thumbnails(old) or ())
        if pictures:
            typical = int((chosen.vectors @ chosen.vectors.mean(axis=0)).argmax())
            tensors |= packed([*pictures, jpeg(chosen.chips[typical])])
        return tensors
    own = torch.nonzero(tensors["owner"] == index)[:, 0].numpy()
    made = tensors["prototypes"].numpy().copy()
    counts = tensors["counts"].numpy().copy()
    lengths = tensors["lengths"].numpy().copy()
    if len(own) < cluster_count(int(counts[own].sum()) + len(chosen.paths)):
        sums = chosen.vectors.sum(axis=0, keepdims=True)
        tensors["owner"] = torch.cat([tensors["owner"], torch.tensor([index])])
        made = np.concatenate([made, unit(sums)])
        counts = np.append(counts, len(chosen.paths))
        lengths = np.append(lengths, np.linalg.norm(sums) / len(chosen.paths)).astype(np.float32)
    else:
        closest = own[(chosen.vectors @ made[own].T).argmax(axis=1)]
        for prototype in np.unique(closest):
            faces = chosen.vectors[closest == prototype]
            total = counts[prototype] * lengths[prototype] * made[prototype] + faces.sum(axis=0)
            counts[prototype] += len(faces)
            lengths[prototype] = np.linalg.norm(total) / counts[prototype]
            made[prototype] = unit(total)
    return tensors | {
        "prototypes": torch.from_numpy(made),
        "counts": torch.from_numpy(counts),
        "lengths": torch.from_numpy(lengths),
    }


def _trained(old: Bundle, vectors: Vectors, person: int) -> Vectors:
    """(m, d) directions of a new person of a classifier, trained as the others were.

    A mean alone lies closer to strangers than trained directions do, whose threshold is the lower:
    with the default embedder a person added so takes in ten times as many strangers. The faces of
    the others are not kept; their directions stand for them, so many times that a training has
    about as many steps as one with faces. Only the new person's directions are taken from it.
    """
    others = old.tensors["prototypes"].numpy()
    owner = old.tensors["owner"].numpy()
    wanted = recipes.plan(Recipe.HEAD, network=old.embedder.id)
    made, made_owner = recipes.fit_head(
        wanted,
        np.concatenate([np.repeat(others, _STAND_FOR, axis=0), vectors]).astype(np.float32),
        np.concatenate([np.repeat(owner, _STAND_FOR), np.full(len(vectors), person)]),
        person + 1,
        wanted.epochs,
        Machine(torch.device("cpu"), 1, 1, None).alone(),
    )
    new: Vectors = made[made_owner == person]
    return new


def _name(name: str) -> str:
    person = person_of(name)
    if not person:
        raise ValueError("A person needs a name.")
    return person
