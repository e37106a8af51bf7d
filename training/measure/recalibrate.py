"""What a bundle's similarities are worth, measured anew on faces that it has not seen.

For a bundle whose calibration was borrowed, scaled or measured on other photos than it meets. Knows
what the bundle sees; knows nothing about files.
"""

from dataclasses import dataclass, replace

import numpy as np

from engine.bundle import Calibration, Manifest, PairRecord
from engine.decision import LoginCalibration
from training.bundles.gallery import CALIBRATED_FOR
from training.console import Advance, silent
from training.datasets import facing, people
from training.measure import login, verification
from training.measure.calibration import assemble
from training.measure.evaluate import EmbeddedProbes, known_numbers
from training.measure.metrics import ERRORS_TO_QUOTE
from training.measure.sight import FaceScorer
from training.vectors import Numbers, Vectors, numbered, thinned

FEWEST_STRANGERS = 10
"""People: the similarities of fewer are those people's, not strangers'."""

FEWEST_KNOWN = 30
"""Faces of people whom the bundle knows, for a temperature and a true positive rate."""

_MOST_SCORES = 2**24


@dataclass(frozen=True)
class Recalibration:
    """A new calibration, which says what it rests on.

    Attributes:
        before, after: the bundle's calibrations.
        pairs_measured: whether the thresholds for two photos were measured, too; where there are
            too few pairs they stay what they were.
    """

    before: Calibration
    after: Calibration
    pairs_measured: bool


def recalibrate(
    sight: FaceScorer,
    data: EmbeddedProbes,
    *,
    created: str,
    strangers: EmbeddedProbes | None = None,
    fmr: float = 1e-3,
    seed: int = 0,
) -> Recalibration:
    """Measure a bundle's temperature, thresholds and percentiles on held-out faces.

    Only faces that are learned from count: a mislabelled face would loosen every figure. Strangers
    are everybody in either collection whom the bundle does not know.

    Args:
        sight: the bundle's.
        data: faces with names.
        created: the date to write down.
        strangers: more faces, of which those of people whom the bundle knows are left out.
        fmr: the rate of strangers that may be called by a name.
        seed: of bootstraps, and of the choice of faces where there are too many pairs.

    Raises:
        ValueError: there are too few faces or people, of the known ones or of the strangers.
    """
    bundle = sight.bundle
    groups = [_usable(data)]
    if strangers is not None:
        # Faces of known people in there may be what the bundle was made from.
        other = _usable(strangers)
        groups.append(other.part(np.flatnonzero(known_numbers(other, bundle) < 0)))
    truths = [known_numbers(seen, bundle) for seen in groups]
    # A photo that is in both collections is one photo, and so is a person.
    seen_ids: set[str] = set()
    vectors, names, truth, similar, best = [], [], [], [], []
    for seen, right in zip(groups, truths, strict=True):
        fresh = np.array([row.id not in seen_ids for row in seen.probes.faces.rows], bool)
        seen_ids |= {row.id for row in seen.probes.faces.rows}
        known = thinned(
            np.flatnonzero(fresh & (right >= 0)), _MOST_SCORES // len(bundle.manifest.people)
        )
        unknown = np.flatnonzero(fresh & (right < 0))
        chosen = np.sort(np.concatenate([known, unknown]))
        vectors.append(seen.vectors[chosen])
        names += [seen.probes.faces.people[i] for i in seen.owner[chosen]]
        truth.append(right[chosen])
        similar.append(_similarities(sight, seen.part(known)))
        stranger = seen.part(unknown)
        nobody = np.full(len(unknown), -1)
        best.append(sight.answers(stranger.probes.faces, stranger.vectors, nobody).best)
    numbers = np.concatenate(truth)
    person = numbered(names)
    outside = person[numbers < 0]
    known_people = len(np.unique(numbers[numbers >= 0]))
    known_faces, stranger_faces = int((numbers >= 0).sum()), len(outside)
    stranger_people = len(np.unique(outside))
    _require(known_faces, known_people, stranger_faces, stranger_people, fmr)
    records = _pairs(sight, np.concatenate(vectors), person, seed)
    calibration, _ = assemble(
        np.concatenate(similar),
        numbers[numbers >= 0],
        np.concatenate(best).astype(np.float64),
        numbered(outside),
        records or list(bundle.calibration.pairs),
        fmr,
    )
    source = " and ".join(seen.probes.faces.name for seen in groups)
    described = (
        f"own, recalibrated {created} on {source}: {known_faces} faces of {known_people} known "
        f"people, {stranger_faces} faces of {stranger_people} strangers"
    )
    return Recalibration(
        before=bundle.calibration,
        after=calibration.model_copy(update={"source": described}),
        pairs_measured=bool(records),
    )


def login_people(data: EmbeddedProbes, strangers: EmbeddedProbes | None = None) -> int:
    """How many people the faces are of that `recalibrate_login` measures on."""
    parts = [_usable(seen).probes.faces for seen in (data, strangers) if seen is not None]
    return len(np.unique(people.merged(parts).owner))


def recalibrate_login(
    sight: FaceScorer,
    data: EmbeddedProbes,
    *,
    created: str,
    strangers: EmbeddedProbes | None = None,
    seed: int = 0,
    advance: Advance = silent,
) -> LoginCalibration:
    """Measure a login's thresholds for a bundle's embedder.

    Everybody counts alike, whether the bundle knows them or not: people who log in are none of
    its own.

    Args:
        sight: the bundle's.
        data: faces with names.
        created: the date to write down.
        strangers: more of them.
        seed: of the draws and bootstraps.
        advance: told how many of `training.measure.login.rounds` are done.

    Raises:
        ValueError: there are too few people or photos.
    """
    form = sight.tools.embedder.specification
    parts = [_usable(seen) for seen in (data, strangers) if seen is not None]
    if any(login.learned_from(form.id, seen.probes.faces) for seen in parts):
        raise ValueError(
            f"{form.id} was trained on data of this name: it tells those people apart better than "
            "anybody who will log in. Give other people's photos."
        )
    faces = people.merged([seen.probes.faces for seen in parts])
    poses = facing.poses(faces, sight.tools.detector)
    # Of whom no photo is left is nobody.
    owner = numbered(faces.owner)
    everybody = replace(login.login_faces(faces, sight.vectors(faces), poses), owner=owner)
    found = login.measure(everybody, form, seed=seed, advance=advance)
    if found is None:
        photos = np.bincount(everybody.owner[everybody.frontal], minlength=everybody.people)
        raise ValueError(
            f"{everybody.people} people with {int(np.median(photos))} good frontal photos each "
            f"(the median) cannot bound a login's false match rate by {login.FMR:g}. Give about 20 "
            "people with 30 such photos each, or 50 with 15; more with --openset DIR."
        )
    source = " and ".join(part.probes.faces.name for part in parts)
    return replace(found, source=f"own, measured {created} on {source}")


def renewed(manifest: Manifest, calibration: Calibration) -> Manifest:
    """A bundle's description with a calibration that was measured with all of its people."""
    architecture = dict(manifest.architecture)
    if CALIBRATED_FOR in architecture:
        architecture[CALIBRATED_FOR] = len(manifest.people)
    return manifest.model_copy(update={"calibration": calibration, "architecture": architecture})


def _usable(seen: EmbeddedProbes) -> EmbeddedProbes:
    return seen.part(np.flatnonzero(~seen.probes.doubted & ~seen.probes.copy))


def _similarities(sight: FaceScorer, seen: EmbeddedProbes) -> Vectors:
    parts = sight.similarities(seen.probes.faces, seen.vectors)
    return np.concatenate([part.cpu().numpy() for part in parts])


def _require(
    known_faces: int, known_people: int, stranger_faces: int, stranger_people: int, fmr: float
) -> None:
    """Raise ValueError where the faces are too few to measure anything by."""
    if known_faces < FEWEST_KNOWN or known_people < 2:
        raise ValueError(
            f"Of people whom the bundle knows, by name, the data has {known_faces} faces of "
            f"{known_people}; it takes {FEWEST_KNOWN} of two people at the least. Hold photos of "
            "its people out, in folders named as in the bundle."
        )
    wanted = int(np.ceil(1 / fmr - 1e-9))
    if stranger_people < FEWEST_STRANGERS or stranger_faces < wanted:
        possible = (
            f" {stranger_faces} faces can support --fmr {1 / stranger_faces:.2g} at the strictest."
            if stranger_people >= FEWEST_STRANGERS
            else ""
        )
        raise ValueError(
            f"There are {stranger_faces} faces of {stranger_people} strangers; a false match rate "
            f"of {fmr:g} takes {wanted:,} faces of {FEWEST_STRANGERS} people at the least. Give "
            f"more with --openset DIR.{possible}"
        )


def _pairs(sight: FaceScorer, vectors: Vectors, person: Numbers, seed: int) -> list[PairRecord]:
    """Thresholds for two photos at every rate that the pairs support; none where none is."""
    chosen = verification.thinned(person, verification.MOST_PAIRS, seed)
    pairs = verification.all_pairs(vectors[chosen], person[chosen], sight.centre)
    if not len(pairs.genuine):
        return []
    records = []
    for point in verification.tar_at_fmr(pairs, seed=seed):
        if point.errors < ERRORS_TO_QUOTE or point.threshold is None or point.tar is None:
            continue
        own = verification.at_threshold(pairs, point.threshold, point.fmr, seed)
        records.append(
            PairRecord(
                threshold=point.threshold,
                fmr=point.fmr,
                fmr_upper_95=own.fmr_upper_95,
                impostor_pairs=len(pairs.impostor),
                genuine_pairs=len(pairs.genuine),
                people=pairs.people,
                true_accept_rate=point.tar,
            )
        )
    return records
