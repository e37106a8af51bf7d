"""What a login's decision is worth: the whole of it, on people whom it was not tuned on.

Enrolment, probes and attempts are played through with faces of a dataset: the mean of some photos
of a person against the mean of other photos of the same person, or of a stranger, who has several
attempts. Thresholds come with the rates that they were chosen by. Knows embeddings, owners and
measured qualities; knows nothing about files, and nothing about bots.

What a dataset of photos cannot tell: how alike frames of one clip are. A clip's frames are taken
for one photo where the right person is concerned and for several where a stranger is, whichever is
worse.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from engine import bundle
from engine.bundle import PREPROCESSING
from engine.decision import NO_VETO, PHOTO, VIDEO, LoginCalibration, OperatingPoint
from engine.login_gates import GATES, Gates
from engine.vision import embed
from training.bundles.gallery import own_calibration
from training.console import Advance, progress, silent
from training.datasets import facing
from training.datasets.data import Faces
from training.datasets.facing import Poses
from training.measure.lending import Decided
from training.measure.metrics import clopper_pearson, upper_quantile
from training.measure.verification import PairBootstrap
from training.tools import Tools
from training.vectors import Flags, Numbers, Owners, Vectors, numbered, person_means, unit

Values = NDArray[np.float64]
Sets = NDArray[np.int64]
"""(draws, sets, size) of indices into a person's faces."""

TEMPLATES = (1, 2, 3, 4, 5)
PROBES = (1, 2, 3)
GRID = tuple((k, m) for k in TEMPLATES for m in PROBES)
CAPTURES = (3, 4, 5)
"""Of `TEMPLATES`, what a person may be asked for."""
ASKED = (2, 3)
"""Of `PROBES`, likewise."""

ATTEMPTS = 5
"""In a row, before a bot makes anybody wait; a stranger has them all."""

FMR = 1e-3
"""What the upper bound of the false match rate must keep, all attempts included."""
GOAL = 1e-4
"""What it comes to where the right people are still let in."""
FNMR = 0.05
"""The share of single attempts of the right person that may be refused."""
_FNMR_AIM = 0.04
"""To be on the safe side of it with other people."""

TURNED = 0.25
"""Yaw from which a face counts as turned; see `engine.types.Pose`."""
_TURN_FNMR = 0.01
"""Share of turned faces of the right person that may be refused: a turn's face is a veto against
somebody else who is spliced in, and takes part in nothing else."""
_AGREEMENT_FNMR = 0.01
"""Share of pairs of photos of one person that may be taken for two people's at enrolment. Captures
of one sitting are more alike than these photos."""

_TURNS = 2
"""Photos that stand for the turns of a clip: to either side."""

_TRAINED = "trained:"
"""Before the name of the bundle, in the id of an embedder that was trained here."""

_FEWEST_PEOPLE = 10
_FEWEST_TURNED_PEOPLE = 5
_FEWEST_TURNED = 30
_FOLDS = 6
_SETS = 20_000
"""Pairs of a person's templates and another person's probes that are played, about."""
_DRAWS = (4, 64)
_MOST_PEOPLE = 80
_MOST_LOOKED_AT = 2 * _MOST_PEOPLE
"""People whose photos are looked at for where they look: half may have too few that look ahead."""


ALIGNED_GATES = replace(GATES, size_px=0.0)
"""Of crops that were aligned before, whose size says nothing."""


def taken(faces: Faces, poses: Poses, gates: Gates = GATES) -> tuple[Flags, Flags]:
    """Which faces a login would take, as far as a manifest tells.

    Not told: the detector's belief, and a shadow over one half. A photo of several people counts by
    its own person's face, as if it had been cut out.

    Args:
        faces: of a dataset.
        poses: where they look, from `training.datasets.facing.poses`; a face that looks nobody
            knows where is not taken.
        gates: what a face must be.

    Returns:
        (n,) whether each would be taken when it is to look ahead, and (n,) when it is to be in the
        middle of a turn.
    """
    rows = list(faces.rows)
    size, blur, exposure = (
        np.array([math.nan if value is None else value for value in column])
        for column in (
            [row.size_px for row in rows],
            [row.blur for row in rows],
            [row.exposure for row in rows],
        )
    )
    yaw, pitch = poses.T
    # Comparisons with NaN are false: what was not measured is not taken.
    good = (
        (size >= gates.size_px)
        & (blur <= gates.blur)
        & (exposure >= gates.exposure[0])
        & (exposure <= gates.exposure[1])
    )
    ahead = (np.abs(yaw) <= gates.yaw) & (pitch >= gates.pitch[0]) & (pitch <= gates.pitch[1])
    return good & ahead, good & (np.abs(yaw) >= TURNED)


@dataclass(frozen=True)
class LoginFaces:
    """The faces that a login is played with.

    Attributes:
        vectors: (n, d) unit embeddings, not centred.
        owner: (n,) whose they are, from 0.
        group: (n,) near-duplicates share one.
        frontal: (n,) whether a face passes the gates.
        turned: (n,) whether it passes them but for being turned aside.
        family: (people,) blood relatives share a number; None where nobody is known to have any.
            They are no strangers to each other: sisters may be as alike as two photos of one.
    """

    vectors: Vectors
    owner: Owners
    group: Owners
    frontal: Flags
    turned: Flags
    family: Numbers | None = None

    @property
    def people(self) -> int:
        """How many there are."""
        return int(self.owner.max()) + 1

    def part(self, people: Sequence[int]) -> "LoginFaces":
        """Some of the people, numbered anew."""
        number = np.full(self.people, -1)
        number[list(people)] = np.arange(len(people))
        kept = number[self.owner] >= 0
        return LoginFaces(
            self.vectors[kept],
            number[self.owner[kept]],
            self.group[kept],
            self.frontal[kept],
            self.turned[kept],
            None if self.family is None else self.family[list(people)],
        )

    @property
    def families(self) -> Numbers:
        """(people,) as `family`; where that is None, everybody is one of their own."""
        return np.arange(self.people) if self.family is None else self.family


def login_faces(faces: Faces, vectors: Vectors, poses: Poses) -> LoginFaces:
    """The faces of a dataset, as a login would see them: which pass the bot's gates.

    Args:
        faces: the dataset.
        vectors: (n, d) unit embeddings of the faces.
        poses: see `training.datasets.facing.poses`.
    """
    # Nobody looked for landmarks in crops that came aligned; their size says nothing.
    crops = np.array([row.yaw is None for row in faces.rows], bool)
    both = zip(taken(faces, poses), taken(faces, poses, ALIGNED_GATES), strict=True)
    frontal, turned = (np.where(crops, aligned, found) for found, aligned in both)
    return LoginFaces(vectors, faces.owner, faces.group, frontal, turned)


def learned_from(embedder_id: str, faces: Faces) -> bool:
    """Whether an embedder was trained on the dataset, as far as the data's name tells.

    It tells apart whom it learned from better than anybody who will ever log in.
    """
    if not embedder_id.startswith(_TRAINED):
        return False
    return bundle.load(embedder_id.removeprefix(_TRAINED)).manifest.dataset.name == faces.name


def own_or_lent(
    faces: Faces,
    vectors: Vectors,
    tools: Tools,
    lent: LoginCalibration | None,
    strangers: tuple[Faces, Vectors] | None = None,
    related: Mapping[str, str] | None = None,
) -> Decided:
    """How a bundle made from a dataset decides logins.

    Args:
        faces: the dataset.
        vectors: (n, d) unit embeddings of the faces.
        tools: the embedder that made them, and the detector.
        lent: another bundle's, for where the dataset cannot tell; None where there is none.
        strangers: further people and their embeddings. Whether a login knows them makes no
            difference: everybody enrols in turn, and tries to be everybody else.
        related: a person's name to a word that blood relatives share.

    Returns:
        What was measured on the faces; where they are too few, or are what the embedder itself
        learned from, `lent`.

    Raises:
        OSError: a crop is missing or damaged.
    """
    own, form = None, tools.embedder.specification
    if learned_from(form.id, faces):
        absent = f"{form.id} was trained on these people."
    elif not own_calibration(faces):
        absent = "There are too few people or photos to measure a login by."
    else:
        own = _measured(
            [(faces, vectors), *([strangers] if strangers else [])], tools, related or {}
        )
        absent = "Too few people have enough photos of a face that looks ahead."
    login = own or lent
    return Decided(login, "" if login else absent)


def _measured(
    sources: Sequence[tuple[Faces, Vectors]], tools: Tools, related: Mapping[str, str]
) -> LoginCalibration | None:
    """Play logins with the people of all sources who have the most photos."""
    counts = [np.bincount(faces.owner, minlength=len(faces.people)) for faces, _ in sources]
    least = np.sort(np.concatenate(counts))[::-1][:_MOST_LOOKED_AT][-1]
    crowds: list[LoginFaces] = []
    people: list[str] = []
    for (faces, vectors), photos in zip(sources, counts, strict=True):
        index = np.flatnonzero((photos >= max(2, least))[faces.owner])
        if not len(index):
            continue
        part = faces.part(index)
        with progress("Looking where faces look", len(part)) as advance:
            poses = facing.poses(part, tools.detector, advance)
        found = login_faces(part, vectors[index], poses)
        numbers, owner = np.unique(found.owner, return_inverse=True)
        crowds.append(replace(found, owner=owner.astype(np.int64) + len(people)))
        people += [faces.people[i] for i in numbers]
    if not crowds:
        return None
    everybody = LoginFaces(
        np.concatenate([part.vectors for part in crowds]),
        np.concatenate([part.owner for part in crowds]),
        np.concatenate([part.group for part in crowds]),
        np.concatenate([part.frontal for part in crowds]),
        np.concatenate([part.turned for part in crowds]),
        # Whoever has no family named is one of their own.
        numbered([related.get(name) or f"\0{i}" for i, name in enumerate(people)]),
    )
    with progress("Measuring logins", rounds(everybody.people)) as advance:
        return measure(everybody, tools.embedder.specification, advance=advance)


@dataclass(frozen=True)
class Trials:
    """What was played with so many templates and probes.

    Attributes:
        templates, probes: how many.
        genuine: (n,) scores of the right people's attempts.
        whose: (n,) the person.
        stranger: (m,) scores of strangers' single attempts.
        victim, impostor: (m,) whose templates, whose probes.
        session: (m,) attempts with the same number are one stranger's in a row; -1 for those that
            are too few to make a row.
        sets: how many attempts of strangers could be made without the same two sets of photos
            meeting twice: the draws share photos, and no more than that may be counted.
        sittings: likewise of rows of attempts.
        own_sets: likewise of the right people's attempts.
    """

    templates: int
    probes: int
    genuine: Values
    whose: Numbers
    stranger: Values
    victim: Numbers
    impostor: Numbers
    session: Numbers
    sets: int
    sittings: int
    own_sets: int

    def rows(self) -> "ImpostorTries":
        """Strangers' rows of attempts: the best of each counts."""
        in_row = self.session >= 0
        order = np.flatnonzero(in_row)
        starts = order[::ATTEMPTS]
        best = self.stranger[order].reshape(-1, ATTEMPTS).max(axis=1)
        return ImpostorTries(best, self.victim[starts], self.impostor[starts], self.sittings)


@dataclass(frozen=True)
class ImpostorTries:
    """Impostors' scores.

    Attributes:
        score: (n,) of each try.
        victim, impostor: (n,) whose templates, whose probes.
        independent: how many tries may be counted; see `Trials.sets`.
    """

    score: Values
    victim: Numbers
    impostor: Numbers
    independent: int

    def part(self, chosen: Flags) -> "ImpostorTries":
        """Some of the tries."""
        count = round(self.independent * float(chosen.mean())) if len(chosen) else 0
        return ImpostorTries(self.score[chosen], self.victim[chosen], self.impostor[chosen], count)

    def rate(self, threshold: float) -> float:
        """The share that reaches a threshold."""
        return float((self.score >= threshold).mean()) if len(self.score) else 0.0


class Bounds:
    """One-sided 95 % upper bounds of strangers' success, at any threshold: the looser of two.

    Clopper and Pearson's takes tries as independent, of which no more are counted than do not share
    both sets of photos. The bootstrap by subject draws people: a try counts as often as its two
    people were drawn together; it sees no further than the successes that were met.
    """

    def __init__(self, strangers: ImpostorTries, seed: int = 0) -> None:
        self._strangers = strangers
        self._bootstrap = PairBootstrap(strangers.victim, strangers.impostor, seed)
        self._all = self._bootstrap.weights(np.ones(len(strangers.score), bool))

    def upper(self, threshold: float) -> float:
        """The bound of the share that reaches a threshold; 1 where there is no try."""
        reached = self._strangers.score >= threshold
        if not len(reached):
            return 1.0
        hits = float(reached.mean()) * self._strangers.independent
        _, exact = clopper_pearson(hits, self._strangers.independent, 0.9)
        if not reached.any():
            return exact
        wrong = self._bootstrap.weights(reached)
        drawn = wrong[self._all > 0] / self._all[self._all > 0]
        return max(exact, float(np.quantile(drawn, 0.95)))

    def lowest(self, rate: float) -> float | None:
        """The lowest threshold whose bound is at most a rate; None where no number supports it."""
        rising = np.unique(self._strangers.score)
        if not len(rising) or self.upper(float(np.nextafter(rising[-1], np.inf))) > rate:
            return None
        low, high = -1, len(rising) - 1  # rejecting rising[high] suffices, rising[low] does not
        while high - low > 1:
            middle = (low + high) // 2
            if self.upper(float(np.nextafter(rising[middle], np.inf))) <= rate:
                high = middle
            else:
                low = middle
        return float(np.nextafter(rising[high], np.inf))


# --- Playing ---


@dataclass(frozen=True)
class Turns:
    """Faces turned aside against the mean of frontal templates.

    Attributes:
        genuine: (n,) of the right person; of each draw of templates every turned face.
        people: how many people they are of.
        faces: how many faces.
        stranger: (m,) of others.
    """

    genuine: Values
    people: int
    faces: int
    stranger: Values


class LoginSimulation:
    """Plays logins with the people of a crowd.

    Cosines of means follow from those of single faces, so each two people's faces meet once.

    Args:
        crowd: everybody; people with too few faces for a combination sit it out.
        combinations: numbers of templates and probes.
        seed: of the draws.
        centre: (d,) the mean face; None: that of everybody but the two who are compared, as it is
            for users, who took no part in it.
    """

    def __init__(
        self,
        crowd: LoginFaces,
        combinations: Sequence[tuple[int, int]],
        seed: int = 0,
        centre: Vectors | None = None,
    ) -> None:
        self._crowd = crowd
        self._combinations = combinations
        self._centre = centre
        self._means = person_means(crowd.vectors, crowd.owner, crowd.people).astype(np.float64)
        self._faces = [
            np.flatnonzero((crowd.owner == person) & crowd.frontal)
            for person in range(crowd.people)
        ]
        pairs = max(1, crowd.people * (crowd.people - 1))
        self._draws = int(np.clip(_SETS // pairs, *_DRAWS))
        generator = np.random.default_rng(seed)
        self._orders = [self._ordered(faces, generator) for faces in self._faces]

    def _ordered(self, faces: Numbers, generator: np.random.Generator) -> Numbers:
        """(draws, photos) a person's faces in random orders, one of each group of twins."""
        groups = self._crowd.group[faces]
        orders = []
        for _ in range(self._draws):
            order = generator.permutation(len(faces))
            _, first = np.unique(groups[order], return_index=True)
            orders.append(order[np.sort(first)])
        return np.array(orders, np.int64).reshape(self._draws, -1)

    def order(self, person: int) -> Numbers:
        """(draws, photos) numbers of a person's faces in random orders, one of each of twins.

        Of each draw the first photos are the templates; the rest, set by set, are probes. Against
        others all of them are.
        """
        return self._faces[person][self._orders[person]]

    def centred(self, person: int, *others: int) -> Vectors:
        """A person's frontal faces, centred without them and without some others."""
        return unit(
            (self._crowd.vectors[self._faces[person]] - self._middle(person, *others)).astype(
                np.float32
            )
        )

    def _middle(self, *without: int) -> Values:
        if self._centre is not None:
            return np.asarray(self._centre, np.float64)
        left = [i for i in range(self._crowd.people) if i not in without]
        middle: Values = self._means[left].mean(axis=0)
        return middle

    def play(self, advance: Advance = silent) -> list[Trials]:
        """Everybody against themselves and against everybody else, for each combination.

        Args:
            advance: told how many of the pairs of people are done.
        """
        families = self._crowd.families
        found = [_CombinationScores(k, m, self._orders, families) for k, m in self._combinations]
        people = self._crowd.people
        for person in range(people):
            own = self.centred(person)
            gram = (own @ own.T).astype(np.float64)
            for book in found:
                book.genuine(person, gram)
        for done, (a, b) in enumerate(combinations(range(people), 2), 1):
            if families[a] == families[b]:
                continue
            left, right = self.centred(a, b), self.centred(b, a)
            across = (left @ right.T).astype(np.float64)
            own_a = (left @ left.T).astype(np.float64)
            own_b = (right @ right.T).astype(np.float64)
            for book in found:
                book.impostor(a, b, across, own_a, own_b)
                book.impostor(b, a, across.T, own_b, own_a)
            advance(done)
        return [book.trials() for book in found]

    def agreement(self) -> float:
        """The lowest cosine of two enrolment captures of one person."""
        found = []
        for person in range(self._crowd.people):
            own, group = self.centred(person), self._crowd.group[self._faces[person]]
            first, second = np.triu_indices(len(own), 1)
            apart = group[first] != group[second]
            cosines = (own @ own.T)[first[apart], second[apart]]
            if len(cosines):
                found.append(np.quantile(cosines, np.linspace(0, 1, 201)))
        # Everybody weighs alike, however many pairs they have.
        if not found:
            return 0.0
        return max(0.0, _down(float(np.quantile(np.concatenate(found), _AGREEMENT_FNMR))))

    def turns(self, templates: int) -> Turns:
        """Faces turned aside against means of templates, their own person's and others'."""
        genuine, stranger, people, faces = [], [], 0, 0
        families = self._crowd.families
        family_of = families[self._crowd.owner]
        for person in range(self._crowd.people):
            enrolled = self._enrolled(person, templates)
            turned = self._turned(person)
            if enrolled is None:
                continue
            others = np.flatnonzero(self._crowd.turned & (family_of != families[person]))
            stranger.append((enrolled @ self._away(others, person).T)[0])
            if len(turned):
                genuine.append((enrolled @ turned.T).ravel())
                people, faces = people + 1, faces + len(turned)
        nothing = np.zeros(0)
        return Turns(
            np.concatenate([nothing, *genuine]), people, faces, np.concatenate([nothing, *stranger])
        )

    def refused(self, templates: int, threshold: float, turn_threshold: float) -> float | None:
        """The share of the right people's clips that are refused; None where nobody has one.

        One photo stands for the frames in which a face looks ahead, two others for the turns.
        """
        passed = []
        for person in range(self._crowd.people):
            enrolled, turned = self._enrolled(person, templates), self._turned(person)
            probes = self._orders[person][:, templates:]
            # Whoever has no photo beside the enrolled ones has none to be let in or refused by.
            if enrolled is None or not len(turned) or not probes.size:
                continue
            own = self.centred(person)
            gram = (own @ own.T).astype(np.float64)
            order = self._orders[person][:, :templates]
            score = scores(order, probes[:, :, None], gram, gram, gram)
            ahead = (score >= threshold).mean(axis=1)
            aside = (enrolled @ turned.T >= turn_threshold).mean(axis=1)
            passed.append(ahead * aside**_TURNS)
        return 1 - float(np.concatenate(passed).mean()) if passed else None

    def _enrolled(self, person: int, templates: int) -> Vectors | None:
        """(draws, d) means of so many of a person's faces, centred without them."""
        order = self._orders[person][:, :templates]
        if order.shape[1] < templates:
            return None
        return unit(self.centred(person)[order].mean(axis=1))

    def _turned(self, person: int) -> Vectors:
        own = np.flatnonzero(self._crowd.turned & (self._crowd.owner == person))
        return self._away(own, person)

    def _away(self, faces: Numbers, *without: int) -> Vectors:
        return unit((self._crowd.vectors[faces] - self._middle(*without)).astype(np.float32))


class _CombinationScores:
    """The scores of one combination."""

    def __init__(
        self, templates: int, probes: int, orders: Sequence[Numbers], families: Numbers
    ) -> None:
        self._k, self._m, self._orders = templates, probes, orders
        self._families = families
        self._genuine: list[tuple[Values, Numbers]] = []
        self._impostor: list[tuple[Values, Numbers, Numbers, Numbers]] = []
        self._sessions = 0

    def _templates(self, person: int) -> Sets | None:
        """(draws, k) of the person's enrolled faces."""
        order = self._orders[person]
        return order[:, : self._k] if order.shape[1] >= self._k else None

    def _probes(self, person: int, skipped: int) -> Sets:
        order = self._orders[person][:, skipped:]
        count = order.shape[1] // self._m
        return order[:, : count * self._m].reshape(len(order), count, self._m)

    def genuine(self, person: int, gram: Values) -> None:
        templates, probes = self._templates(person), self._probes(person, self._k)
        if templates is None or not probes.size:
            return
        score = scores(templates, probes, gram, gram, gram)
        self._genuine.append((score.ravel(), np.full(score.size, person)))

    def impostor(self, a: int, b: int, across: Values, own_a: Values, own_b: Values) -> None:
        """The templates of a, the probes of b."""
        templates, probes = self._templates(a), self._probes(b, 0)
        if templates is None or not probes.size:
            return
        score = scores(templates, probes, across, own_a, own_b)
        draws, count = score.shape
        rows = count // ATTEMPTS
        session = np.full(score.shape, -1)
        session[:, : rows * ATTEMPTS] = np.repeat(np.arange(draws * rows), ATTEMPTS).reshape(
            draws, -1
        )
        session[session >= 0] += self._sessions
        self._sessions += draws * rows
        victim, stranger = np.full(score.size, a), np.full(score.size, b)
        self._impostor.append((score.ravel(), victim, stranger, session.ravel()))

    def trials(self) -> Trials:
        genuine, whose = _joined(self._genuine, 2)
        stranger, victim, impostor, session = _joined(self._impostor, 4)
        photos = np.array([order.shape[1] for order in self._orders])
        enrolled, asked = photos // self._k, photos // self._m
        return Trials(
            self._k,
            self._m,
            genuine,
            whose.astype(np.int64),
            stranger,
            victim.astype(np.int64),
            impostor.astype(np.int64),
            session.astype(np.int64),
            sets=min(len(stranger), _met(enrolled, asked, self._families)),
            sittings=min(self._sessions, _met(enrolled, asked // ATTEMPTS, self._families)),
            own_sets=min(
                len(genuine),
                int((enrolled * (np.maximum(photos - self._k, 0) // self._m)).sum()),
            ),
        )


def _joined(parts: Sequence[tuple[NDArray[np.generic], ...]], columns: int) -> list[Values]:
    if not parts:
        return [np.zeros(0) for _ in range(columns)]
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


def _met(enrolled: Numbers, asked: Numbers, family: Numbers) -> int:
    """How many sets of templates and of probes there are of two people who are no relatives."""
    related = np.bincount(family, enrolled) @ np.bincount(family, asked)
    return int(enrolled.sum() * asked.sum() - related)


def scores(templates: Sets, probes: Sets, across: Values, own: Values, other: Values) -> Values:
    """Cosines of means, from those of single faces; as `engine.decision.decide` compares.

    Args:
        templates: (r, k) indices of enrolled faces.
        probes: (r, j, m) indices of fresh ones.
        across: (n, n') cosines of the enrolled person's faces and the other's.
        own: (n, n) of the enrolled person's faces.
        other: (n', n') of the other's.

    Returns:
        (r, j) scores.
    """
    single = across[templates[:, :, None, None], probes[:, None, :, :]].sum(axis=3)  # (r, k, j)
    enrolled = own[templates[:, :, None], templates[:, None, :]].sum(axis=(1, 2)) ** 0.5
    asked = other[probes[..., :, None], probes[..., None, :]].sum(axis=(2, 3)) ** 0.5
    score: Values = single.sum(axis=1) / (enrolled[:, None] * asked)
    return score


# --- Choosing ---


def choose(genuine: Values, strangers: ImpostorTries, seed: int = 0) -> float | None:
    """The threshold for some people: as strict as the right ones can bear.

    The upper bound of strangers' success keeps `FMR` in any case. It goes on to where as many
    succeed as `GOAL` says, as measured, as long as no more than 4 % of the right people's attempts
    are refused.

    Returns:
        None where the tries are too few to keep `FMR`, or there is nobody to let in.
    """
    loose = Bounds(strangers, seed).lowest(FMR)
    if loose is None or not len(genuine):
        return None
    strict = upper_quantile(strangers.score, GOAL)
    bearable = float(np.quantile(genuine, _FNMR_AIM))
    return max(loose, min(strict, bearable))


def choose_for_others(trials: Trials, seed: int = 0) -> float | None:
    """The threshold to ship to other people than these.

    Everybody in turn is left out, a sixth at a time; the strictest threshold that any of the rest
    would have chosen leaves the margin that people make.
    """
    rows = trials.rows()
    threshold = choose(trials.genuine, rows, seed)
    if threshold is None:
        return None
    people = max(trials.whose.max(initial=0), rows.victim.max(initial=0)) + 1
    for fold in range(min(_FOLDS, int(people))):
        kept = (rows.victim % _FOLDS != fold) & (rows.impostor % _FOLDS != fold)
        found = choose(trials.genuine[trials.whose % _FOLDS != fold], rows.part(kept), seed)
        threshold = max(threshold, found or threshold)
    return _up(threshold)


def _up(value: float, digits: int = 4) -> float:
    """Rounded to the stricter side, so that it does not hang on the last bits of a machine."""
    return float(np.ceil(value * 10**digits - 1e-9) / 10**digits) + 0.0  # never -0.0


def _down(value: float, digits: int = 4) -> float:
    return float(np.floor(value * 10**digits + 1e-9) / 10**digits)


# --- Everything together ---


def measure(
    crowd: LoginFaces,
    embedder: embed.Specification,
    *,
    grid: Sequence[tuple[int, int]] = GRID,
    seed: int = 0,
    advance: Advance = silent,
) -> LoginCalibration | None:
    """Calibrate a login on a dataset.

    Args:
        crowd: everybody; of more than 80 people some are drawn.
        embedder: whose vectors they are.
        grid: the numbers of templates and probes to measure.
        seed: of the draws and bootstraps.
        advance: told how much of `rounds` is done.

    Returns:
        None where the people or their photos are too few for any threshold to be trusted.
    """
    if crowd.people < _FEWEST_PEOPLE or not crowd.frontal.any():
        return None
    centre = person_means(crowd.vectors, crowd.owner, crowd.people).mean(axis=0)
    drawn = _drawn(crowd, seed)
    table = LoginSimulation(drawn, grid, seed)
    played = table.play(advance)
    pairs = rounds(crowd.people, grid) - len(grid)
    chosen: list[tuple[Trials, float]] = []
    for done, trials in enumerate(played, 1):
        found = choose_for_others(trials, seed)
        if found is not None:
            chosen.append((trials, found))
        advance(pairs + done)
    if not chosen:
        return None
    points = [_photo(trials, threshold, seed) for trials, threshold in chosen]
    points += _videos(table, played, seed)
    captures, probes = advised(points)
    return LoginCalibration(
        embedder=embedder.id,
        weights_sha256=embedder.weights_sha256,
        preprocessing=PREPROCESSING,
        centre=np.round(centre.astype(np.float64), 6).astype(np.float32),
        points=tuple(points),
        agreement=table.agreement(),
        captures=captures,
        probes=probes,
        attempts=ATTEMPTS,
    )


def rounds(people: int, grid: Sequence[tuple[int, int]] = GRID) -> int:
    """How many steps `measure` has for so many people."""
    drawn = min(people, _MOST_PEOPLE)
    return drawn * (drawn - 1) // 2 + len(grid)


def _drawn(crowd: LoginFaces, seed: int) -> LoginFaces:
    """Of very many people those with the most moments that can be used; drawn among equals.

    Whoever has two photos cannot enrol with three and be tried with a fourth.
    """
    if crowd.people <= _MOST_PEOPLE:
        return crowd
    used = crowd.frontal
    moments = np.unique(np.stack([crowd.owner[used], crowd.group[used]]), axis=1)[0]
    counts = np.bincount(moments, minlength=crowd.people)
    chance = np.random.default_rng(seed).permutation(crowd.people)
    some = np.lexsort((chance, -counts))[:_MOST_PEOPLE]
    return crowd.part(np.sort(some).tolist())


def _photo(trials: Trials, threshold: float, seed: int) -> OperatingPoint:
    rows = trials.rows()
    return OperatingPoint(
        level=PHOTO,
        templates=trials.templates,
        probes=trials.probes,
        threshold=threshold,
        template_floor=NO_VETO,
        turn_threshold=None,
        fmr=_up(rows.rate(threshold), 6),
        fmr_upper_95=_up(Bounds(rows, seed).upper(threshold), 6),
        fnmr=_up(float((trials.genuine < threshold).mean()), 6),
        people=len(np.unique(trials.whose)),
        impostor_trials=trials.sittings,
        genuine_trials=trials.own_sets,
    )


def _videos(table: LoginSimulation, played: Sequence[Trials], seed: int) -> list[OperatingPoint]:
    """The points of a clip: one probe for the right person, the worst number of them for others."""
    points = []
    for k in sorted({each.templates for each in played if each.probes == 1}):
        turns = table.turns(k)
        if turns.people < _FEWEST_TURNED_PEOPLE or turns.faces < _FEWEST_TURNED:
            continue
        trials = {each.probes: each for each in played if each.templates == k}
        one = trials[1]
        # The bound holds however independent the frames are; strictness is what one photo can bear.
        chosen = [
            choose_for_others(replace(each, genuine=one.genuine, whose=one.whose), seed)
            for each in trials.values()
        ]
        supported = [threshold for threshold in chosen if threshold is not None]
        if len(supported) < len(chosen):
            continue
        threshold = max(supported)
        turn = max(_down(float(np.quantile(turns.genuine, _TURN_FNMR))), 0.0)
        rows = {m: each.rows() for m, each in trials.items()}
        refused = table.refused(k, threshold, turn)
        if refused is None:
            continue
        points.append(
            OperatingPoint(
                level=VIDEO,
                templates=k,
                probes=1,
                threshold=threshold,
                template_floor=NO_VETO,
                turn_threshold=turn,
                fmr=_up(max(each.rate(threshold) for each in rows.values()), 6),
                fmr_upper_95=_up(
                    max(Bounds(each, seed).upper(threshold) for each in rows.values()), 6
                ),
                fnmr=_up(refused, 6),
                people=turns.people,
                impostor_trials=min(each.independent for each in rows.values()),
                genuine_trials=turns.faces,
            )
        )
    return points


def advised(points: Sequence[OperatingPoint]) -> tuple[int, int]:
    """How many enrolment captures and photos to ask for: the least that does.

    Probes are asked for at every login, captures once: so probes are spared first. What does keeps
    `FMR` by its bound, comes to `GOAL` as measured, and refuses less than half of `FNMR`: other
    people may be harder to tell apart.
    """
    fitting = [
        point
        for point in points
        if point.level == PHOTO and point.templates in CAPTURES and point.probes in ASKED
    ]
    good = [point for point in fitting if point.fnmr < FNMR / 2 and point.fmr <= GOAL]
    if good:
        best = min(good, key=lambda point: (point.probes, point.templates))
    elif fitting:
        best = min(fitting, key=lambda point: point.fnmr)
    else:
        return max(CAPTURES), max(ASKED)
    return best.templates, best.probes
