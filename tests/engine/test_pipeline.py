from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from engine import bundle
from engine.errors import BundleError, ComparisonError
from engine.media import jpeg
from engine.media.image import Photo
from engine.people.compare import compare, largest_face, pair_threshold
from engine.pipeline import Pipeline
from engine.request import PhotoRequest
from engine.settings import Settings
from engine.types import Person
from engine.vision import embed
from engine.vision.align import ARCFACE, ARCFACE_SIZE, crop
from engine.vision.embed import embed_crops
from tests.engine.bundles import make
from tests.engine.seers import request_of


@pytest.fixture(scope="module")
def pipeline():
    return Pipeline.from_settings(Settings(engine_device="cpu", engine_bundle="celebrities"))


@pytest.fixture(scope="module")
def astronaut():
    return Image.fromarray(data.astronaut())


def test_sees_the_astronaut(pipeline, astronaut):
    (analysis,) = pipeline.analyze([PhotoRequest(astronaut, top_k=3, embed=True)])
    (face,) = analysis.faces
    assert (analysis.width_px, analysis.height_px) == (512, 512)
    assert analysis.bundle == pipeline.bundle.id == pipeline.info().bundle
    assert len(face.matches) == 3
    assert face.embedding.shape == (128,)
    assert np.linalg.norm(face.embedding) == pytest.approx(1, abs=1e-5)
    assert abs(face.pose.yaw) < 0.15
    assert 60 < face.quality.size_px < 120
    # Eileen Collins is not in the gallery.
    assert all(match.verdict != "is" for match in face.matches)


def test_a_batch_gives_what_each_photo_gives_alone(pipeline, astronaut):
    photos = [astronaut, Image.new("RGB", (300, 200)), astronaut.resize((900, 900))]
    requests = [PhotoRequest(photo, top_k=k + 1, embed=True) for k, photo in enumerate(photos)]
    together = pipeline.analyze(requests)
    assert [len(analysis.faces) for analysis in together] == [1, 0, 1]
    for request, analysis in zip(requests, together, strict=True):
        (alone,) = pipeline.analyze([request])
        for face, other in zip(analysis.faces, alone.faces, strict=True):
            assert len(face.matches) == request.top_k
            assert [m.name for m in face.matches] == [m.name for m in other.matches]
            assert face.embedding @ other.embedding > 0.9999


def test_a_shrunk_photo_is_told_in_pixels_of_its_original(pipeline, astronaut):
    shrunk = Photo(astronaut.resize((300, 300)), width_px=600, height_px=900)
    (analysis,) = pipeline.analyze([request_of(shrunk)])
    (plain,) = pipeline.analyze([PhotoRequest(shrunk.image)])
    (face,), (own,) = analysis.faces, plain.faces
    assert (analysis.width_px, analysis.height_px) == (600, 900)
    np.testing.assert_allclose(face.box, np.array(own.box) * (2, 3, 2, 3), rtol=1e-6)
    np.testing.assert_allclose(face.landmarks, np.array(own.landmarks) * (2, 3), rtol=1e-6)
    sides = face.box[2] - face.box[0], face.box[3] - face.box[1]
    assert face.quality.size_px == pytest.approx(min(sides))


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_photo_on_its_side_is_turned_and_told_in_pixels_of_the_turned_one(
    pipeline, astronaut, degrees
):
    upright = astronaut.crop((30, 0, 430, 330))
    (known,) = pipeline.analyze([PhotoRequest(upright, embed=True)])
    assert known.turned == 0
    lying = upright.rotate(degrees, expand=True)  # against the clock
    shrunk = Photo(lying, width_px=2 * lying.width, height_px=2 * lying.height)
    picture = jpeg.encode(lying)
    asked = replace(request_of(shrunk, embed=True), picture=picture)
    beside = [
        PhotoRequest(upright, picture=picture),
        asked,
        PhotoRequest(Image.new("RGB", (300, 200))),
    ]
    before, analysis, empty = pipeline.analyze(beside)
    assert (before.turned, len(before.faces)) == (0, 1)
    assert (empty.turned, empty.faces, empty.width_px, empty.height_px) == (0, (), 300, 200)
    assert (before.picture, analysis.picture) == (picture, jpeg.turned(picture, degrees))
    assert analysis.turned == degrees
    assert (analysis.width_px, analysis.height_px) == (800, 660)
    (face,), (own,) = analysis.faces, known.faces
    np.testing.assert_allclose(face.box, np.array(own.box) * 2, atol=0.5)
    np.testing.assert_allclose(face.landmarks, np.array(own.landmarks) * 2, atol=0.5)
    assert face.embedding @ own.embedding > 0.999
    assert face.matches[0].name == own.matches[0].name


def test_frames_crops_and_known_faces_are_not_turned(pipeline, astronaut):
    (analysis,) = pipeline.analyze([PhotoRequest(astronaut)])
    lying = astronaut.transpose(Image.Transpose.ROTATE_90)
    requests = [
        PhotoRequest(lying, near=True),
        PhotoRequest(lying, aligned=True),
        PhotoRequest(lying, face=replace(analysis.faces[0], probability=0.8)),
    ]
    assert [seen.turned for seen in pipeline.analyze(requests)] == [0, 0, 0]


@pytest.mark.parametrize("name", ["coffee", "chelsea", "rocket", "clock", "coins", "page"])
def test_no_photo_without_a_face_is_turned(pipeline, name):
    photo = Image.fromarray(getattr(data, name)()).convert("RGB")
    (analysis,) = pipeline.analyze([PhotoRequest(photo)])
    assert (analysis.turned, analysis.faces) == (0, ())


@pytest.mark.parametrize("original_px", [(400, 300), (401, 1031)])
def test_boxes_stay_within_the_photo(pipeline, astronaut, original_px):
    """The photo's edges cut the face on each side in turn."""
    width, height = original_px
    for x, y in [(195, 0), (0, 80), (-145, 0), (0, -140)]:
        photo = astronaut.crop((x, y, x + 400, y + 300))
        analyses = pipeline.analyze([PhotoRequest(photo, original_px=original_px)])
        (face,) = analyses[0].faces
        x1, y1, x2, y2 = face.box
        assert 0 <= x1 < x2 <= width
        assert 0 <= y1 < y2 <= height


def test_no_requests(pipeline):
    assert pipeline.analyze([]) == []


def test_an_embedding_comes_only_when_asked_for(pipeline, astronaut):
    (analysis,) = pipeline.analyze([PhotoRequest(astronaut)])
    assert analysis.faces[0].embedding is None


def test_nobody_is_named_where_nobody_is_asked_for(pipeline, astronaut):
    requests = [
        PhotoRequest(astronaut, top_k=0),
        PhotoRequest(astronaut, top_k=2),
        PhotoRequest(astronaut, top_k=0, embed=True),
    ]
    bare, named, embedded = (analysis.faces[0] for analysis in pipeline.analyze(requests))
    assert bare.matches == embedded.matches == ()
    assert bare.embedding is None
    assert len(named.matches) == 2
    assert embedded.embedding.shape == (128,)
    # Each half of a batch is looked at with threads of its own, whose sums differ in the last bit.
    assert bare.box == pytest.approx(named.box, abs=1e-3)
    assert bare.box == pytest.approx(embedded.box, abs=1e-3)


def test_a_face_that_was_found_before_is_looked_at_again(pipeline, astronaut):
    shrunk = Photo(astronaut.resize((256, 256)), width_px=512, height_px=512)
    asked = request_of(shrunk, embed=True)
    (analysis,) = pipeline.analyze([asked])
    (face,) = analysis.faces
    # Beside other requests, whose faces have to be found.
    beside = [PhotoRequest(astronaut, top_k=0), replace(asked, top_k=0, face=face)]
    (known,) = pipeline.analyze(beside)[1].faces
    np.testing.assert_allclose(known.box, face.box, rtol=1e-5)
    np.testing.assert_allclose(known.landmarks, face.landmarks, rtol=1e-5)
    assert known.probability == pytest.approx(face.probability)
    assert known.embedding @ face.embedding > 0.9999
    assert known.matches == ()
    # It is believed, whatever is there.
    away = replace(face, landmarks=moved(face.landmarks, -150, 250))
    (other,) = pipeline.analyze([replace(asked, face=away)])[0].faces
    assert other.embedding @ face.embedding < 0.95


def moved(landmarks, x, y):
    return tuple((a + x, b + y) for a, b in landmarks)


def test_an_aligned_crop_is_its_own_face(pipeline, astronaut):
    (analysis,) = pipeline.analyze([PhotoRequest(astronaut, embed=True)])
    chip = Image.fromarray(crop(astronaut, analysis.faces[0].landmarks, ARCFACE, ARCFACE_SIZE))
    (aligned,) = pipeline.analyze([PhotoRequest(chip, embed=True, aligned=True)])
    (face,) = aligned.faces
    assert face.box == (0, 0, 112, 112)
    assert face.embedding @ analysis.faces[0].embedding > 0.98


def test_a_bundle_of_another_embedder_is_refused(tmp_path):
    record = {"id": "dlib-resnet29", "weights_sha256": "0" * 64, "dimension": 128}
    stem = make(tmp_path, embedder=record)
    cpu = torch.device("cpu")
    with pytest.raises(BundleError, match="not comparable") as caught:
        Pipeline(bundle.load(stem), embed.load("dlib-resnet29", cpu, tmp_path), cpu)
    assert caught.value.code == "bundle_mismatch"


def test_the_people_come_by_class_index_with_what_is_said_of_them(tmp_path):
    # "10" comes before "2" in JSON's keys, were they taken as texts.
    names = [f"Person {index}" for index in range(12)]
    about = {2: {"country": "AR", "known_for": {"es": "tenista"}}, 10: {"country": "US"}}
    stem = make(tmp_path, people=names, about=about)
    cpu = torch.device("cpu")
    known = Pipeline(bundle.load(stem), embed.load("dlib-resnet29", cpu, tmp_path), cpu).people()
    assert [person.name for person in known] == names
    assert known[2] == Person("Person 2", "AR", {"es": "tenista"})
    assert known[10] == Person("Person 10", "US", {})
    assert known[0] == Person("Person 0")


def test_any_number_of_crops_is_embedded_alike():
    embedder = embed.load("dlib-resnet29", torch.device("cpu"), None)
    crops = np.random.default_rng(2).integers(0, 256, (19, 150, 150, 3), np.uint8)
    together = embed_crops(embedder, crops)
    alone = torch.cat([embed_crops(embedder, crops[i : i + 1]) for i in (0, 15, 16, 18)])
    torch.testing.assert_close(together[[0, 15, 16, 18]], alone, atol=1e-5, rtol=0)


def test_a_person_is_the_same_as_in_the_mirror_and_not_the_same_as_noise(pipeline, astronaut):
    noise = np.random.default_rng(1).integers(0, 256, (112, 112, 3), np.uint8)
    mirrored = astronaut.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    faces = [
        analysis.faces[0]
        for analysis in pipeline.analyze(
            [
                PhotoRequest(astronaut, embed=True),
                PhotoRequest(mirrored, embed=True),
                PhotoRequest(Image.fromarray(noise), embed=True, aligned=True),
            ]
        )
    ]
    same, other = (compare(faces[0], face, pipeline.bundle) for face in faces[1:])
    assert same.same
    assert same.similarity > 0.9
    assert not other.same
    assert same.threshold == other.threshold
    assert same.fmr == pytest.approx(1e-3)


def test_the_threshold_is_the_strictest_measured_one_at_most():
    celebrities = bundle.load("celebrities")
    assert pair_threshold(celebrities, 1e-2).fmr == pytest.approx(1e-2)
    assert pair_threshold(celebrities, 1e-9).fmr == min(
        record.fmr for record in celebrities.calibration.pairs
    )


def test_nobody_cannot_be_compared(pipeline):
    (analysis,) = pipeline.analyze([PhotoRequest(Image.new("RGB", (200, 200)))])
    with pytest.raises(ComparisonError, match=r"No face was found in wall\.jpg"):
        largest_face(analysis, "wall.jpg")
