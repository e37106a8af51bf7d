"""From whom bundles borrow, and what is said about it."""

from dataclasses import replace

import pytest

from engine import bundle
from engine.errors import BundleError
from engine.vision import embed
from engine.vision.embed.dlib_resnet29 import DlibResNet29
from tests.engine import bundles
from tests.engine.logins import calibration
from training.measure import lending

FORM = DlibResNet29.specification
METRICS = {"top_1": 0.95, "top_5": 0.99}
UNKNOWN = replace(FORM, id="never-heard-of")


def test_each_embedder_has_a_default_bundle_of_its_own():
    assert lending.lender_for(embed.DEFAULT) == "celebrities"
    assert lending.lender_for("mobilefacenet") == "celebrities-mobilefacenet"
    assert lending.lender_for("onnx:eyes") == "celebrities-onnx:eyes"


def test_the_default_bundle_of_the_embedder_lends():
    assert lending.lender(None, FORM).id == bundle.load("celebrities").id
    assert lending.lender(None, UNKNOWN) is None
    assert lending.login(None, FORM) is None


def test_a_bundle_that_was_chosen_must_be_there(tmp_path):
    lender = bundles.make(tmp_path, login=calibration())
    assert lending.lender(str(lender), UNKNOWN).id == bundle.load(lender).id
    with pytest.raises(BundleError, match="nobody"):
        lending.lender(str(tmp_path / "nobody"), FORM)


def test_a_login_is_lent_to_the_same_embedder_only(tmp_path):
    lender = bundle.load(bundles.make(tmp_path, login=calibration()))
    assert lending.login(lender, FORM).version == calibration().version
    assert lending.login(lender, UNKNOWN) is None
    assert lending.login(lender, replace(FORM, weights_sha256="0" * 64)) is None


def test_an_operator_hears_why_there_is_no_login(tmp_path):
    why = "There are too few people or photos to measure a login by."
    without = bundle.load(bundles.make(tmp_path / "a", login_absent=why, metrics=METRICS))
    assert lending.report(without)[0].startswith(f"{why} None could be borrowed either")
    assert "lets nobody in" in lending.report(without)[0]
    unknown = bundle.load(bundles.make(tmp_path / "b", metrics=METRICS))
    assert "nothing to measure a login by" in lending.report(unknown)[0]
    own = replace(calibration(), source="own")
    measured = bundle.load(bundles.make(tmp_path / "c", login=own, metrics=METRICS))
    assert all("login" not in line for line in lending.report(measured))


def test_the_figures_say_whose_the_strangers_are(tmp_path):
    record = bundles.manifest(("Ana", "Ben", "Carla"))["calibration"]
    own = replace(calibration(), source="own")
    stem = bundles.make(tmp_path / "own", login=own, metrics=METRICS)
    (line,) = lending.report(bundle.load(stem))
    assert "top-1 95.00%" in line
    assert "0.10% of 2000 faces of 20 strangers (its own people, left out in turn)" in line
    record["strangers"] = "lfw"
    record["identification"]["repeated"] = {"people": 40, "share": 0.025, "share_upper_95": 0.115}
    stem = bundles.make(tmp_path / "theirs", login=own, metrics=METRICS, calibration=record)
    first, second = lending.report(bundle.load(stem))
    assert "strangers (lfw) (95 % upper bound 0.30%)" in first
    assert "2.5% of 40 (95 % upper bound 11.5%)" in second
