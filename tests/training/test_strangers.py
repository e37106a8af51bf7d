"""A calibration by strangers who are given: what rests on them, and what does not."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from engine import bundle
from engine.bundle import PairRecord
from engine.vision.embed.dlib_resnet29 import DlibResNet29
from training.bundles import gallery
from training.bundles.gallery import Source, prototypes
from training.console import silent
from training.datasets.data import Faces
from training.datasets.manifest import Row, Status
from training.measure import calibration
from training.measure.calibration import Strangers, calibrate, repeated, rounds, scaled
from training.vectors import person_means, unit

PEOPLE = 12
PAIRS = [
    PairRecord(
        threshold=0.5, fmr=1e-2, impostor_pairs=9, genuine_pairs=9, people=3, true_accept_rate=0.9
    )
]


@dataclass(frozen=True)
class Cloud:
    vectors: np.ndarray
    owner: np.ndarray


def cloud(people, each, spread=1.5, seed=0):
    """People as clouds around directions."""
    generator = np.random.default_rng(seed)
    owner = np.repeat(np.arange(people), each)
    directions = unit(generator.normal(size=(people, 64)).astype(np.float32))
    noise = generator.normal(size=(len(owner), 64)) * spread / 8
    return Cloud(unit((directions[owner] + noise).astype(np.float32)), owner)


def strangers_of(people=200, each=4, seed=77):
    faces = cloud(people, each, seed=seed)
    return Strangers(faces.vectors, faces.owner, "others")


@pytest.fixture(scope="module")
def known():
    return cloud(PEOPLE, each=12)


def measured(known, strangers, advance=silent):
    return calibrate(known.vectors, known.owner, PEOPLE, prototypes, advance, strangers=strangers)


@pytest.fixture(scope="module")
def by_strangers(known):
    return measured(known, strangers_of())


@pytest.fixture(scope="module")
def by_many(known):
    return measured(known, strangers_of(people=2000, each=1))[0]


def answers(known, vectors):
    """The best match of each face in the gallery of everybody, and whose it is."""
    centre = person_means(known.vectors, known.owner, PEOPLE).mean(axis=0)
    made, _ = prototypes(unit(known.vectors - centre), known.owner, PEOPLE)
    scores = unit(vectors - centre) @ made.T
    return scores.max(axis=1), scores.argmax(axis=1)


def called(figures, best, named, slack=1e-6):
    """Who is called by a name, as the engine decides it."""
    threshold = np.array([figures.threshold_of(person) for person in range(PEOPLE)])
    return best >= threshold[named] - slack


def test_the_figures_rest_on_the_strangers(known, by_strangers):
    figures, _ = by_strangers
    record = figures.identification
    best, named = answers(known, strangers_of().vectors)
    assert figures.strangers == "others"
    assert (record.strangers, record.stranger_people) == (800, 200)
    assert record.genuine == len(known.vectors)
    wrong = called(figures, best, named, slack=0)
    assert record.fmr == pytest.approx(wrong.mean(), abs=1 / 800)
    assert record.fmr <= 1 / 800
    assert record.fmr < record.fmr_upper_95
    told = np.array(figures.stranger_quantiles)[[100, 500, 900]]
    np.testing.assert_allclose(np.quantile(best, (0.1, 0.5, 0.9)), told, atol=0.005)


def test_without_strangers_the_own_people_are_left_out(known):
    figures, _ = calibrate(known.vectors, known.owner, PEOPLE, prototypes)
    record = figures.identification
    assert figures.strangers == ""
    assert (record.strangers, record.stranger_people) == (len(known.vectors), PEOPLE)


def test_strangers_who_look_more_alike_raise_the_threshold(known, by_strangers):
    others = strangers_of()
    kin = unit(0.4 * known.vectors[others.person % len(known.vectors)] + others.vectors)
    figures, _ = measured(known, Strangers(kin, others.person, "kin"))
    far = by_strangers[0]
    assert figures.identification.threshold > far.identification.threshold + 0.05
    assert figures.identification.true_positive_rate < far.identification.true_positive_rate
    assert figures.stranger_quantiles[500] > far.stranger_quantiles[500]


def test_strangers_change_nothing_that_is_measured_on_the_people(known, by_strangers):
    figures, metrics = by_strangers
    without, own = calibrate(known.vectors, known.owner, PEOPLE, prototypes)
    assert metrics == own
    assert figures.pairs == without.pairs
    assert figures.temperature == without.temperature
    assert figures.identification.genuine == without.identification.genuine


def test_the_rate_holds_for_other_strangers(known, by_strangers):
    figures, _ = by_strangers
    wrong = called(figures, *answers(known, strangers_of(people=2000, seed=78).vectors))
    assert wrong.mean() <= figures.identification.fmr_upper_95


def test_measuring_by_strangers_takes_a_few_galleries_only(known):
    done, met = [], strangers_of(people=20)
    measured(known, met, done.append)
    assert rounds(PEOPLE, met) == rounds(5000, met) == 6
    assert done == [1, 2, 3, 4, 5, 6]


def test_strangers_may_have_one_photo_each(by_many):
    assert by_many.identification.stranger_people == 2000
    assert by_many.identification.repeated is None


def test_more_strangers_than_are_looked_up_are_thinned_evenly(known, monkeypatch):
    monkeypatch.setattr(calibration, "_MOST_QUERIES", 100)
    figures, _ = measured(known, strangers_of(people=400, each=2))
    assert figures.identification.strangers == 100
    assert figures.identification.stranger_people == 100


def test_nothing_of_the_strangers_gets_into_a_bundle(tmp_path, known):
    """They are measured by; nobody of theirs moves the centre or a prototype."""
    wide = np.zeros((len(known.vectors), 128), np.float32)
    wide[:, :64] = known.vectors
    rows = [Row(str(i), f"{i}.jpg", "x", Status.KEEP) for i in range(len(wide))]
    names = [f"Person {i:02}" for i in range(PEOPLE)]
    faces = Faces(Path(), "set", names, known.owner, np.arange(len(wide)), rows, {})
    generator = np.random.default_rng(1)
    met = unit(generator.normal(size=(200, 128)).astype(np.float32) + 0.3)
    made = {}
    for name, strangers in (
        ("with", Strangers(met, np.arange(200) // 2, "others")),
        ("without", None),
    ):
        gallery.build(
            faces,
            wide,
            DlibResNet29.specification,
            tmp_path / name,
            Source("set", "none", "2026-01-01"),
            thumbnails=False,
            borrow=None,
            strangers=strangers,
        )
        made[name] = bundle.load(tmp_path / name)
    assert made["with"].calibration.strangers == "others"
    assert made["with"].calibration.identification.stranger_people == 100
    assert made["with"].manifest.pth_sha256 == made["without"].manifest.pth_sha256
    assert made["with"].manifest.people == made["without"].manifest.people
    assert made["with"].manifest.dataset == made["without"].manifest.dataset
    size = tmp_path.joinpath("with.json").stat().st_size
    assert size < tmp_path.joinpath("without.json").stat().st_size + 500


# --- The same wrong name again and again ---


def test_who_gets_one_name_in_more_than_a_tenth_of_the_photos_is_counted():
    person = np.repeat([0, 1, 2, 3], [20, 20, 5, 4])
    named, name = np.zeros(49, bool), np.zeros(49, np.int64)
    named[:2] = True  # two of twenty: a tenth, not more
    named[20:26], name[20:26] = True, [0, 0, 1, 1, 2, 2]  # six, but no name three times
    named[45:] = True  # four photos of somebody who has no five
    assert repeated(named, name, person).share == 0
    name[20:26] = [0, 0, 1, 1, 1, 2]
    record = repeated(named, name, person)
    assert record.people == 3
    assert record.share == pytest.approx(1 / 3)
    assert record.share < record.share_upper_95 < 1
    named[40] = True  # one of five
    assert repeated(named, name, person).share == pytest.approx(2 / 3)


def test_nobody_with_five_photos_says_nothing():
    nobody = np.zeros(8, np.int64)
    assert repeated(np.ones(8, bool), nobody, np.arange(8) // 4) is None


STRANGERS, PHOTOS, KNOWN = 1000, 20, 50


def many_strangers(alike=0):
    """Best matches of 1000 strangers; the first resembles person 33 in some of the photos."""
    generator = np.random.default_rng(3)
    person = np.repeat(np.arange(STRANGERS), PHOTOS)
    best = generator.normal(0.2, 0.03, len(person))
    named = (np.arange(len(person)) + person) % KNOWN  # each photo another name
    named[:alike], best[:alike] = 33, np.linspace(0.6, 0.5, alike)
    return best, person, named


def told(best, person, named):
    truth = np.repeat(np.arange(KNOWN), 4)
    scores = np.random.default_rng(4).normal(0, 0.05, (len(truth), KNOWN)).astype(np.float32)
    scores[np.arange(len(truth)), truth] += 0.55
    return calibration.assemble(scores, truth, best, person, PAIRS, named=named)[0]


def test_a_stranger_who_often_resembles_one_person_raises_the_threshold_for_that_name():
    usual = told(*many_strangers())
    assert usual.identification.repeated.share == 0
    assert {usual.threshold_of(i) for i in range(KNOWN)} == {usual.identification.threshold}
    best, person, named = many_strangers(alike=8)
    figures = told(best, person, named)
    # Two of the twenty photos may still get the name.
    assert (best[:8] >= figures.threshold_of(33)).sum() == 2
    assert figures.identification.repeated.people == STRANGERS
    assert figures.identification.repeated.share == 0
    # The likeness is of two people, and costs nobody else.
    everybody = {figures.threshold_of(i) for i in range(KNOWN) if i != 33}
    assert everybody == {figures.identification.threshold}
    assert figures.identification.threshold == pytest.approx(
        usual.identification.threshold, abs=0.03
    )
    others = (best[8:] >= figures.identification.threshold).sum()
    assert figures.identification.fmr == pytest.approx((2 + others) / len(best))
    # Faces of person 33 are less often called by name, and that is told, too.
    assert figures.identification.true_positive_rate < usual.identification.true_positive_rate


def test_a_tenth_of_the_photos_raises_nothing():
    best, person, named = many_strangers(alike=2)
    figures = told(best, person, named)
    assert figures.threshold_of(33) == figures.identification.threshold
    assert figures.identification.repeated.share == 0


def test_whoever_resembles_one_person_in_most_photos_is_that_person():
    """A wrong label: it must not cost that person the name."""
    usual, figures = told(*many_strangers()), told(*many_strangers(alike=15))
    assert figures.threshold_of(33) == figures.identification.threshold
    assert figures.identification.threshold == pytest.approx(
        usual.identification.threshold, abs=0.04
    )
    assert figures.identification.repeated.share == 1 / STRANGERS  # and it is told


def test_faces_of_strangers_without_names_repeat_none():
    """Who a stranger was taken for is not always known; nobody's name is at fault then."""
    best, person, _ = many_strangers(alike=3)
    five = person < 40
    figures = told(best[five], np.arange(five.sum()) // 5, None)
    assert {figures.threshold_of(i) for i in range(1000)} == {figures.identification.threshold}
    assert figures.identification.repeated is None


def test_people_who_are_left_out_in_turn_raise_the_name_that_they_get(monkeypatch):
    """In a gallery without some people the others have other numbers; the name counts."""
    monkeypatch.setattr(calibration, "_MOST_ALONE", 50)  # ten galleries without a tenth each
    monkeypatch.setattr(calibration, "_MOST_COMPARED", 10)
    people = 200
    faces = cloud(people, each=5, spread=1.0)
    vectors = faces.vectors.copy()
    vectors[10] = unit(vectors[faces.owner == 157].sum(axis=0, keepdims=True))
    figures, _ = calibrate(vectors, faces.owner, people, prototypes)
    threshold = figures.identification.threshold
    raised = {i for i in range(people) if figures.threshold_of(i) > threshold}
    assert raised == {157}
    assert figures.identification.repeated.people == people
    assert figures.identification.repeated.share == 0
    assert figures.identification.fmr == 0


def test_a_gallery_says_how_often_a_name_is_repeated(known, by_strangers):
    met = strangers_of(people=60, each=10)
    figures, _ = measured(known, met)
    best, named = answers(known, met.vectors)
    own = repeated(called(figures, best, named), named, met.person)
    assert figures.identification.repeated.people == own.people == 60
    assert figures.identification.repeated.share <= own.share <= 0.1
    assert by_strangers[0].identification.repeated is None  # four photos each


# --- The far end ---


def test_the_far_end_is_fitted_where_there_are_enough_strangers(known, by_many):
    best, _ = answers(known, strangers_of(people=20_000, each=1, seed=79).vectors)
    for share, rel in ((0.05, 0.25), (0.01, 0.5)):
        assert (best > by_many.tail.level(share)).mean() == pytest.approx(share, rel=rel)
    assert by_many.identification.threshold >= by_many.tail.level(1e-3)
    assert measured(known, strangers_of(people=300, each=1))[0].tail is None


@pytest.mark.parametrize("power", [1.25, 3, 8, 50])
def test_among_more_people_the_far_end_is_so_many_times_as_heavy(by_many, power):
    borrowed = scaled(by_many, PEOPLE, round(PEOPLE * power))
    assert borrowed.tail.rate == pytest.approx(by_many.tail.rate)
    assert borrowed.tail.start > by_many.tail.start
    for share in (0.09, 0.03, 1e-2, 1e-3, 1e-4):
        below = 1 - by_many.tail.share_above(borrowed.tail.level(share))
        assert 1 - below**power == pytest.approx(share, rel=0.06)


def test_the_more_people_the_higher_a_borrowed_threshold(by_many):
    own = by_many.identification.threshold
    raised = [
        scaled(by_many, PEOPLE, people).identification.threshold
        for people in (PEOPLE, PEOPLE + 1, 2 * PEOPLE, 10 * PEOPLE, 100 * PEOPLE)
    ]
    assert raised == sorted(raised)
    assert raised[0] == own
    assert raised[1] == pytest.approx(own, abs=0.02)  # one more person hardly matters
    assert raised[-1] > own + 0.03


def test_few_strangers_promise_a_borrower_no_more_than_they_can(known):
    """Floors may leave none of them with a name; that does not make them a thousand."""
    lender, _ = measured(known, strangers_of(people=200, each=1))
    none = lender.identification.model_copy(update={"fmr": 0.0})
    borrowed = scaled(lender.model_copy(update={"identification": none}), PEOPLE, 3 * PEOPLE)
    assert borrowed.identification.fmr == 1 / 200
    assert borrowed.identification.threshold > lender.identification.threshold
