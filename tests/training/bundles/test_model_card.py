import re

import pytest
import torch

from engine import bundle
from tests.engine import bundles
from tests.training.workbench import classifier, run, vectorizer
from training.bundles.model_card import card


@pytest.fixture
def made(tmp_path):
    return {
        "gallery": bundles.make(tmp_path),
        "classifier": classifier(None, tmp_path / "cnn", ("Ana", "Ben")),
        "vectorizer": vectorizer(tmp_path / "eyes"),
    }


SECTIONS = [
    "Data",
    "How it was made",
    "How good it is",
    "Limits",
    "What it is for",
    "What it is not for",
    "Faces are biometric data",
]


@pytest.mark.parametrize("kind", ["gallery", "classifier", "vectorizer"])
def test_every_kind_has_a_card(made, kind):
    result = run("card", made[kind])
    assert result.exit_code == 0
    headings = re.findall(r"^## (.+)$", result.stdout, re.MULTILINE)
    assert [heading for heading in headings if heading != "People"] == SECTIONS
    assert ("People" in headings) == (kind != "vectorizer")
    assert f"A {kind}:" in result.stdout
    assert bundle.load(made[kind]).id in result.stdout


def test_figures_come_with_what_they_rest_on(made):
    text = run("card", made["gallery"]).stdout
    assert "Of 2,000 faces of 20 strangers, 0.10% reached that (95 % upper bound: 0.30%)" in text
    assert "| 0.001 | 0.600 | 80.0% | 1,000,000 of 20 people |" in text
    assert "Nothing was measured when it was made" in text


def test_what_was_borrowed_is_not_called_measured(tmp_path):
    record = bundles.manifest(["Ana"])
    record["calibration"]["source"] = "celebrities@12345678"
    stem = bundles.make(tmp_path, people=("Ana",), calibration=record["calibration"])
    text = card(bundle.load(stem))
    assert "borrowed from celebrities@12345678" in text
    assert "Its rates were measured with another bundle" in text


def test_a_trained_one_says_how(made):
    text = run("card", made["classifier"]).stdout
    assert "The network is mobilenet\\_v2" in text
    assert "trained on the photos, from end to end" in text
    assert "trained from nothing" in run("card", made["vectorizer"]).stdout


def test_thumbnails_are_photos(tmp_path):
    picture = torch.tensor(list(b"\xff\xd8"), dtype=torch.uint8)
    tensors = {"thumbnails": picture, "thumbnail_ends": torch.tensor([2])}
    stem = bundles.make(tmp_path, people=("Ana",), tensors=tensors)
    assert "holds a small picture of each person" in card(bundle.load(stem))


def test_names_cannot_become_markup(tmp_path):
    stem = bundles.make(
        tmp_path, people=("<script>x</script>", "[link](http://x)", "a | b", "two  lines", "# one")
    )
    text = card(bundle.load(stem))
    assert not re.search(r"(?<!\\)<script", text)
    assert not re.search(r"(?<!\\)\[link", text)
    assert not re.search(r"^# one", text, re.MULTILINE)
    assert "two lines" in text


def test_many_people_are_counted(tmp_path):
    stem = bundles.make(tmp_path, people=tuple(f"Person {i}" for i in range(35)))
    assert "Person 29 and 5 more." in card(bundle.load(stem))


def test_a_bundle_that_is_not_there(tmp_path):
    result = run("card", tmp_path / "absent")
    assert result.exit_code == 1
    assert "There is no bundle 'absent'" in " ".join(result.output.split())
