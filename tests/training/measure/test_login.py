import json

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binom
from skimage import data as pictures

from engine import bundle, decision
from engine.vision.align import ARCFACE, ARCFACE_SIZE, crop
from engine.vision.detect import Detector
from engine.vision.embed.dlib_resnet29 import DlibResNet29
from engine.vision.pose import pose
from tests.engine import bundles
from tests.engine.logins import calibration
from tests.training.synthetic import prepared
from tests.training.workbench import clouds, gallery, run, said
from training.datasets import data, facing, manifest
from training.datasets.manifest import Row, Status
from training.measure import lending, login
from training.measure.metrics import clopper_pearson, upper_quantile
from training.vectors import person_means

FORM = DlibResNet29.specification


def crowd_of(vectors, owner, *, turned=0, group=None):
    """Everybody looks ahead but for the first few faces of each."""
    place = np.concatenate([np.arange(count) for count in np.bincount(owner)])
    aside = place < turned
    groups = np.arange(len(owner)) if group is None else group
    return login.LoginFaces(vectors, owner, groups, ~aside, aside)


GRID = [(k, m) for k in (1, 3) for m in login.PROBES]


@pytest.fixture(scope="module")
def people():
    return crowd_of(*clouds(people=16, each=32, spread=1.1, seed=1), turned=3)


@pytest.fixture(scope="module")
def measured(people):
    return login.measure(people, FORM, grid=GRID)


def test_it_keeps_its_promise_with_people_whom_it_has_not_seen(measured):
    others = crowd_of(*clouds(people=16, each=32, spread=1.1, seed=2))
    point = measured.point("photo", 3, 2)
    (trials,) = login.LoginSimulation(others, [(3, 2)], 5, measured.centre).play()
    assert trials.rows().rate(point.threshold) <= login.FMR
    assert (trials.genuine < point.threshold).mean() < login.FNMR


def test_every_point_says_what_it_rests_on(measured):
    photos = [point for point in measured.points if point.level == "photo"]
    assert {(point.templates, point.probes) for point in photos} > {(1, 1), (3, 2)}
    for point in measured.points:
        assert 0 <= point.fmr <= point.fmr_upper_95 <= login.FMR
        assert point.impostor_trials * login.FMR >= 2.99, "fewer could not bound it"
        assert point.people == 16
        assert point.threshold == round(point.threshold, 4)


def test_more_photos_are_worth_more(measured):
    by = {(p.templates, p.probes): p.fnmr for p in measured.points if p.level == "photo"}
    assert by[3, 2] <= by[1, 2] <= by[1, 1]


def test_a_clip_is_no_better_than_one_photo_and_no_safer_than_several(measured):
    clip = measured.point("video", 3, 1)
    photos = [measured.point("photo", 3, m) for m in login.PROBES]
    assert clip.threshold <= max(photo.threshold for photo in photos)
    assert clip.fnmr >= photos[1].fnmr
    assert 0 <= clip.turn_threshold < clip.threshold


def test_same_faces_same_calibration(people, measured):
    again = login.measure(people, FORM, grid=GRID)
    assert again == measured
    assert again.version == measured.version
    assert np.array_equal(again.centre, np.round(again.centre, 6))
    middle = person_means(people.vectors, people.owner, people.people).mean(axis=0)
    np.testing.assert_allclose(measured.centre, middle, atol=1e-6)


def test_without_turned_faces_there_is_no_login_by_video():
    found = login.measure(crowd_of(*clouds(people=16, each=32, spread=1.0)), FORM, grid=[(3, 2)])
    assert [point.level for point in found.points] == ["photo"]
    with pytest.raises(ValueError, match="no login by video"):
        found.point("video", 5, 9)


@pytest.mark.parametrize(("count", "each"), [(9, 60), (12, 5)])
def test_few_people_or_photos_support_nothing(count, each):
    assert login.measure(crowd_of(*clouds(people=count, each=each)), FORM) is None


def test_scores_are_those_that_decide_compares(people):
    (trials,) = login.LoginSimulation(people, [(3, 2)], 7, np.zeros(128, np.float32)).play()
    orders = login.LoginSimulation(people, [(3, 2)], 7, np.zeros(128, np.float32)).order(0)
    templates, probes = people.vectors[orders[0, :3]], people.vectors[orders[0, 3:5]]
    score = float(trials.genuine[0])
    centre = np.zeros(128, np.float32)
    mean = decision.centred(templates, centre).mean(axis=0)
    fresh = decision.centred(probes, centre).mean(axis=0)
    cosine = mean @ fresh / np.linalg.norm(mean) / np.linalg.norm(fresh)
    assert score == pytest.approx(cosine, abs=1e-5)
    for edge, accepted in ((score - 1e-4, True), (score + 1e-4, False)):
        made = calibration(
            centre=np.zeros(128, np.float32),
            points=(decision.OperatingPoint("photo", 3, 2, edge, -1.0, None, 0, 0, 0, 1, 1, 1),),
        )
        assert decision.decide(made, "photo", templates, probes).accepted == accepted


def test_near_duplicates_never_meet(people):
    twins = np.arange(len(people.owner)) // 2
    paired = login.LoginFaces(people.vectors, people.owner, twins, people.frontal, people.turned)
    order = login.LoginSimulation(paired, [(3, 2)]).order(3)
    assert order.shape[1] == len(np.unique(twins[(people.owner == 3) & people.frontal]))
    for row in order:
        assert len(set(twins[row])) == len(row)
        assert set(people.owner[row]) == {3}
        assert people.frontal[row].all()


def test_only_people_with_photos_enough_take_part():
    vectors, owner = clouds(people=12, each=12)
    kept = (owner > 0) | (np.arange(len(owner)) < 4)
    few = crowd_of(vectors[kept], owner[kept])
    (trials,) = login.LoginSimulation(few, [(5, 1)]).play()
    assert 0 not in trials.whose
    assert 0 not in trials.victim
    assert 0 in trials.impostor


def test_a_row_of_attempts_is_as_good_as_its_best(people):
    (trials,) = login.LoginSimulation(people, [(3, 2)]).play()
    rows = trials.rows()
    first = trials.session == trials.session[trials.session >= 0][0]
    assert first.sum() == login.ATTEMPTS
    assert rows.score[0] == trials.stranger[first].max()
    assert (rows.victim[0], rows.impostor[0]) == (
        trials.victim[first][0],
        trials.impostor[first][0],
    )
    for threshold in np.quantile(trials.stranger, (0.5, 0.9, 0.999)):
        single, row = float((trials.stranger >= threshold).mean()), rows.rate(threshold)
        assert single <= row <= login.ATTEMPTS * single + 1e-3


# --- Bounds ---


def strangers(score, victim, impostor, independent=None):
    count = len(score) if independent is None else independent
    return login.ImpostorTries(np.array(score, float), np.array(victim), np.array(impostor), count)


def upper_bound(rate, count):
    """Clopper and Pearson's one-sided 95 % bound."""
    return clopper_pearson(rate * count, count, 0.9)[1]


def test_clopper_and_pearson():
    assert upper_bound(0.0, 2995) == pytest.approx(1e-3, rel=1e-3)
    upper = upper_bound(3 / 400, 400)
    assert binom.cdf(3, 400, upper) == pytest.approx(0.05, abs=1e-9)
    assert upper_bound(1.0, 5) == 1.0


def test_the_bound_grows_when_few_people_make_all_mistakes():
    generator = np.random.default_rng(0)
    victim, impostor = (part.ravel() for part in np.indices((20, 20)))
    apart = victim != impostor
    victim, impostor = np.repeat(victim[apart], 50), np.repeat(impostor[apart], 50)
    spread = np.zeros(len(victim))
    spread[generator.permutation(len(victim))[:100]] = 1
    heaped = np.zeros(len(victim))
    heaped[np.flatnonzero((victim == 3) & (impostor < 2))[:100]] = 1
    assert spread.sum() == heaped.sum() == 100
    bounds = [login.Bounds(strangers(s, victim, impostor)).upper(0.5) for s in (spread, heaped)]
    exact = upper_bound(100 / len(victim), len(victim))
    assert bounds[0] < 1.3 * exact
    assert bounds[1] > 2 * exact


def test_no_more_trials_count_than_are_different():
    score = np.zeros(10_000)
    who = np.arange(10_000) % 2
    few = login.Bounds(strangers(score, who, 1 - who, independent=100)).upper(0.5)
    assert few == pytest.approx(upper_bound(0.0, 100))


def test_the_lowest_threshold_keeps_its_bound_and_no_lower_one_does():
    generator = np.random.default_rng(1)
    victim, impostor = generator.integers(0, 10, 20_000), generator.integers(10, 20, 20_000)
    bounds = login.Bounds(strangers(generator.normal(size=20_000), victim, impostor))
    found = bounds.lowest(1e-2)
    assert bounds.upper(found) <= 1e-2
    assert bounds.upper(found - 1e-3) > 1e-2
    assert bounds.lowest(1e-5) is None


def test_it_goes_on_towards_the_goal_as_far_as_the_right_people_can_bear():
    generator = np.random.default_rng(2)
    size = 200_000
    victim, impostor = generator.integers(0, 30, size), generator.integers(30, 60, size)
    others = strangers(generator.normal(0, 0.1, size), victim, impostor)
    loose, strict = login.Bounds(others).lowest(login.FMR), upper_quantile(others.score, login.GOAL)
    assert loose < strict
    assert login.choose(generator.normal(0.9, 0.05, 5000), others) == strict
    right = generator.normal(0.52, 0.1, 5000)
    between = login.choose(right, others)
    assert loose < between < strict
    assert (right < between).mean() <= login.FNMR
    assert login.choose(generator.normal(0.1, 0.1, 5000), others) == loose


def test_the_least_that_does_is_advised():
    def point(k, m, fnmr, fmr=5e-5):
        return decision.OperatingPoint("photo", k, m, 0.5, -1, None, fmr, 1e-3, fnmr, 20, 9, 9)

    assert login.advised([point(3, 2, 0.03), point(5, 2, 0.02), point(3, 3, 0.01)]) == (5, 2)
    assert login.advised([point(3, 2, 0.03), point(5, 2, 0.03), point(4, 3, 0.02)]) == (4, 3)
    assert login.advised([point(5, 2, 0.02, fmr=5e-4), point(3, 3, 0.02)]) == (3, 3)
    assert login.advised([point(1, 1, 0.01), point(3, 2, 0.09), point(5, 3, 0.07)]) == (5, 3)


# --- Gates and poses ---


def faces_of(*rows):
    made = [
        Row(str(i), f"{i}.png", "Ana", Status.KEEP, crop="x", **row) for i, row in enumerate(rows)
    ]
    nothing = np.zeros(len(rows), np.int64)
    return data.Faces(None, "made up", ["Ana"], nothing, np.arange(len(rows)), made, {})


GOOD = {"size_px": 120.0, "blur": 0.3, "exposure": 0.5}


@pytest.mark.parametrize(
    ("row", "poses", "taken"),
    [
        (GOOD, (0.0, 0.56), (True, False)),
        (GOOD, (-0.13, 0.56), (False, False)),
        (GOOD, (-0.3, 0.56), (False, True)),
        (GOOD, (0.0, 0.8), (False, False)),
        (GOOD, (np.nan, np.nan), (False, False)),
        (GOOD | {"size_px": 60.0}, (0.0, 0.56), (False, False)),
        (GOOD | {"blur": 0.7}, (0.3, 0.56), (False, False)),
        (GOOD | {"exposure": 0.1}, (0.0, 0.56), (False, False)),
        (GOOD | {"exposure": None}, (0.0, 0.56), (False, False)),
    ],
)
def test_a_face_must_be_good_enough(row, poses, taken):
    ahead, aside = login.taken(faces_of(row), np.array([poses]))
    assert (bool(ahead[0]), bool(aside[0])) == taken


def test_the_size_of_an_aligned_crop_says_nothing():
    small = faces_of(GOOD | {"size_px": 30.0})
    vectors, level = np.ones((1, 4), np.float32), np.array([[0.0, 0.56]])
    assert login.login_faces(small, vectors, level).frontal.all()
    told = faces_of(GOOD | {"size_px": 30.0, "yaw": 0.0, "pitch": 0.56})
    assert not login.login_faces(told, vectors, level).frontal.any()


@pytest.fixture(scope="module")
def detector():
    return Detector(torch.device("cpu"))


def test_where_aligned_crops_look_is_looked_for_and_kept(tmp_path, detector):
    photo = Image.fromarray(pictures.astronaut())
    (seen,) = detector.detect([photo])
    chip = Image.fromarray(crop(photo, seen.landmarks[0], ARCFACE, ARCFACE_SIZE))
    chip.save(tmp_path / "0.png")
    chip.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "1.png")
    Image.new("RGB", (112, 112), "teal").save(tmp_path / "2.png")
    rows = [
        Row(str(i), f"{i}.png", "Ana", Status.KEEP, crop=f"{i}.png", landmarks=ARCFACE.tolist())
        for i in range(3)
    ]
    rows.append(Row("3", "3.png", "Ana", Status.KEEP, crop="gone.png", yaw=0.2, pitch=0.5))
    manifest.write(tmp_path / manifest.NAME, rows)
    faces = data.Faces(tmp_path, "made up", ["Ana"], np.zeros(4, np.int64), np.arange(4), rows, {})
    told = []
    found = facing.poses(faces, detector, told.append)
    own = pose(seen.landmarks[0])
    assert found[0] == pytest.approx((own.yaw, own.pitch), abs=0.06)
    assert found[1] == pytest.approx((-own.yaw, own.pitch), abs=0.06)  # a mirror turns it round
    assert np.isnan(found[2]).all()
    assert found[3].tolist() == [0.2, 0.5]
    assert told[-1] == 4

    class Nobody:
        def detect(self, photos):
            raise AssertionError("it was kept")

    np.testing.assert_array_equal(facing.poses(faces, Nobody()), found)


# --- The command line and lending ---


@pytest.fixture(scope="module")
def crowd_folder(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("crowd"), people=14, each=26, seed=11)


def test_calibrate_writes_it_and_the_card_tells_it(tmp_path, crowd_folder):
    people = ["Person 0", "Person 1", "Person 2"]
    stem = gallery(crowd_folder, tmp_path / "mine", people, login_absent="There are too few.")
    weights = stem.with_suffix(".pth").read_bytes()
    command = ("calibrate", stem, crowd_folder, "--login", "--created", "2026-02-03", "--json")
    result = run(*command)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    made = bundle.load(stem).manifest.login
    assert told["version"] == made.version
    assert made.source == f"own, measured 2026-02-03 on {crowd_folder.name}"
    assert bundle.load(stem).manifest.login_absent == ""
    assert {(point["templates"], point["probes"]) for point in told["points"]} >= {(1, 1), (3, 1)}
    assert stem.with_suffix(".pth").read_bytes() == weights
    written = stem.with_suffix(".json").read_bytes()
    assert run(*command).exit_code == 0
    assert stem.with_suffix(".json").read_bytes() == written
    shown = said(run("calibrate", stem, crowd_folder, "--login", "--created", "2026-02-03"))
    assert f"version {made.version}" in shown
    assert "login by video: it stays off" in shown
    card = run("card", stem).stdout
    assert "## As a login's second factor" in card
    assert f"{made.points[0].threshold:.3f}" in card


def test_a_photo_that_is_in_both_collections_counts_once(tmp_path, crowd_folder):
    stem = gallery(crowd_folder, tmp_path / "mine", ["Person 0", "Person 1", "Person 2"])
    command = ("calibrate", stem, crowd_folder, "--login", "--json")
    once, twice = (
        json.loads(run(*command, *more).stdout) for more in ((), ("--openset", crowd_folder))
    )
    assert twice["points"] == once["points"]
    assert twice["source"].endswith(f"{crowd_folder.name} and {crowd_folder.name}")


def test_too_few_people_are_told_what_it_takes(tmp_path, crowd_folder):
    few = prepared(tmp_path / "few", people=4, each=8)
    stem = gallery(few, tmp_path / "mine", ["Person 0", "Person 1"])
    before = stem.with_suffix(".json").read_bytes()
    result = run("calibrate", stem, few, "--login")
    assert result.exit_code == 1
    assert "4 people with 8 good frontal photos each" in said(result)
    assert stem.with_suffix(".json").read_bytes() == before


def test_a_bundle_of_the_same_embedder_lends(tmp_path):
    lender = bundles.make(tmp_path / "lender", login=calibration())
    lent = lending.login(bundle.load(lender), FORM)
    assert lent.source == bundle.load(lender).id
    assert lent.version == calibration().version
    again = bundles.make(tmp_path / "again", login=lent)
    assert lending.login(bundle.load(again), FORM).source == lent.source
    assert lending.login(bundle.load(bundles.make(tmp_path / "none")), FORM) is None


def test_a_small_gallery_borrows_and_says_so(tmp_path):
    lender = bundles.make(
        tmp_path / "lender", people=tuple(f"P{i}" for i in range(12)), login=calibration()
    )
    few = prepared(tmp_path / "few", people=4, each=6)
    out = tmp_path / "mine"
    result = run("gallery", few, "--out", out, "--calibration-from", f"{lender}")
    assert result.exit_code == 0, result.output
    made = bundle.load(out).manifest.login
    assert made.version == calibration().version
    assert made.source == bundle.load(lender).id
    assert f"logins are decided as by {made.source}" in said(result)
    assert f"Borrowed from {made.source}" in run("card", out).stdout


def test_nobody_is_measured_on_whom_the_embedder_learned_from(tmp_path, crowd_folder):
    eyes = bundles.make(
        tmp_path,
        people=(),
        vectors=torch.zeros(0, 128),
        kind="vectorizer",
        calibration=None,
        dataset={
            "name": crowd_folder.name,
            "licence": "none",
            "people": 14,
            "photos": 1,
            "faces": 1,
            "dropped": {},
        },
    )
    faces = data.load(crowd_folder)
    assert login.learned_from(f"trained:{eyes}", faces)
    assert not login.learned_from(FORM.id, faces)
