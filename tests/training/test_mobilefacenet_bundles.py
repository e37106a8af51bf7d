"""A gallery, a classifier and a login by the real mobilefacenet, of real people's photos.

Needs its weights (`python -m training fetch mobilefacenet`) and ../shared/data.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine import bundle, decision
from engine.pipeline import Pipeline
from engine.request import PhotoRequest
from engine.settings import Settings
from engine.vision import embed
from tests.engine import mobilefacenets
from tests.training.workbench import run, said

CELEBRITIES = Path(__file__).parents[3] / "shared" / "data" / "celebrities"
PEOPLE, LEARNED, ASKED = 6, 8, 4

pytestmark = pytest.mark.skipif(not CELEBRITIES.is_dir(), reason="needs ../shared/data/celebrities")


@pytest.fixture(scope="module")
def weights():
    return mobilefacenets.real_folder()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Folders to learn from, and each person's photos to ask about."""
    folder, asked = tmp_path_factory.mktemp("people"), {}
    for person in sorted(CELEBRITIES.iterdir())[:PEOPLE]:
        files = sorted(person.iterdir())[: LEARNED + ASKED]
        own = folder / person.name
        own.mkdir()
        for file in files[:LEARNED]:
            shutil.copy(file, own)
        asked[person.name.replace("_", " ")] = files[LEARNED:]
    return folder, asked


@pytest.fixture(scope="module", params=["gallery", "classifier"])
def stem(request, weights, photos, tmp_path_factory):
    out = tmp_path_factory.mktemp(request.param) / "mine"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("FACE_WEIGHTS_DIR", str(weights))
        environment.setenv("ENGINE_DEVICE", "cpu")
        options = ["--runs", out.parent / "runs"] if request.param == "classifier" else []
        result = run(
            *(request.param, photos[0], "--aligned", "--embedder", "mobilefacenet", "--out", out),
            *options,
        )
    assert result.exit_code == 0, said(result)
    return out


def pipeline(stem, weights):
    settings = Settings(engine_bundle=str(stem), engine_device="cpu", face_weights_dir=weights)
    return Pipeline.from_settings(settings)


def requests(files, **options):
    return [
        PhotoRequest(Image.open(file).convert("RGB"), aligned=True, **options) for file in files
    ]


def test_a_bundle_names_the_right_people(stem, weights, photos):
    made = bundle.load(stem)
    assert made.embedder.id == "mobilefacenet"
    lender = bundle.load("celebrities-mobilefacenet")
    assert made.calibration.source == lender.id
    assert made.manifest.login is not None
    serving = pipeline(stem, weights)
    right = 0
    for person, files in photos[1].items():
        for analysis in serving.analyze(requests(files)):
            right += analysis.faces[0].matches[0].name == person
    assert right >= PEOPLE * ASKED - 1


def test_the_login_lets_in_the_person_and_nobody_else(weights, photos):
    calibration = bundle.load("celebrities-mobilefacenet").manifest.login
    point = calibration.point(decision.PHOTO, calibration.captures, calibration.probes)
    embedder = embed.load("mobilefacenet", torch.device("cpu"), weights)
    assert calibration.embedder == embedder.specification.id
    vectors = {}
    for person in sorted(CELEBRITIES.iterdir())[:PEOPLE]:
        files = sorted(person.iterdir())[: point.templates + point.probes]
        pictures = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
        vectors[person.name] = embed.embed_crops(embedder, pictures).numpy()
    for person, own in vectors.items():
        for other, theirs in vectors.items():
            found = decision.decide(
                calibration, decision.PHOTO, own[: point.templates], theirs[point.templates :]
            )
            assert found.accepted == (person == other), (person, other, found)
