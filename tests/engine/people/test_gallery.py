import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from engine import bundle
from engine.errors import BundleError
from engine.people.gallery import Gallery, best_per_person
from engine.types import Verdict
from tests.engine.bundles import make

CPU = torch.device("cpu")


def gallery(folder, **changes):
    return Gallery(bundle.load(make(folder, **changes)), CPU)


def towards(direction, cosine):
    """A unit vector at the given cosine from a unit vector."""
    other = torch.roll(direction, 1)
    other = normalize(other - (other @ direction) * direction, dim=0)
    return cosine * direction + (1 - cosine**2) ** 0.5 * other


def test_names_the_closest_first(tmp_path):
    stem = make(tmp_path)
    read = bundle.load(stem)
    query = towards(read.tensors["prototypes"][1], 0.9)
    (matches,) = Gallery(read, CPU).search(query[None], top_k=3)
    assert matches[0].name == "Ben"
    assert matches[0].similarity == pytest.approx(0.9, abs=1e-5)
    similarities = [match.similarity for match in matches]
    assert similarities == sorted(similarities, reverse=True)
    assert sum(match.probability for match in matches) == pytest.approx(1, abs=1e-5)


def test_asks_for_more_people_than_there_are(tmp_path):
    found = gallery(tmp_path).search(normalize(torch.ones(2, 128), dim=1), top_k=99)
    assert [len(matches) for matches in found] == [3, 3]


def test_no_vectors(tmp_path):
    assert gallery(tmp_path).search(torch.zeros(0, 128), top_k=5) == []


def test_one_vector_in_the_gallery(tmp_path):
    (matches,) = gallery(tmp_path, people=("Ana",)).search(
        normalize(torch.ones(1, 128), dim=1), top_k=5
    )
    assert [match.name for match in matches] == ["Ana"]
    assert matches[0].probability == 1


@pytest.mark.parametrize(
    ("cosine", "percentile", "verdict"),
    [
        (0.06, 7.5, Verdict.FAINT),
        (0.065, 8.125, Verdict.SOME),
        (0.40, 50.0, Verdict.SOME),
        (0.43, 57.5, Verdict.SOME),
        (0.45, 62.5, Verdict.GOOD),
        (0.57, 92.5, Verdict.GOOD),
        (0.585, 96.25, Verdict.STRONG),
        (0.71, 100 * (1 - 1 / 2001), Verdict.IS),
    ],
)
def test_says_what_a_similarity_is_worth(tmp_path, cosine, percentile, verdict):
    read = bundle.load(make(tmp_path, people=("Ana",)))
    query = towards(read.tensors["prototypes"][0], cosine)
    ((match,),) = Gallery(read, CPU).search(query[None], top_k=1)
    assert match.percentile == pytest.approx(percentile, abs=0.01)
    assert match.verdict is verdict


def test_vectors_are_centred_before_they_are_compared(tmp_path):
    centre = torch.full((128,), 0.05)
    prototype = normalize(torch.eye(128)[:1], dim=1)
    found = gallery(
        tmp_path, people=("Ana",), vectors=prototype, tensors={"centre": centre}
    ).search(centre[None] + 0.3 * prototype, top_k=1)
    assert found[0][0].similarity == pytest.approx(1, abs=1e-5)


def test_a_person_is_as_close_as_their_closest_prototype():
    prototypes = torch.eye(4)
    owner = torch.tensor([0, 1, 0, 1])
    found = best_per_person(torch.tensor([[0.1, 0.2, 0.9, 0.3]]), prototypes, owner, 2)
    torch.testing.assert_close(found, torch.tensor([[0.9, 0.3]]))


def test_exact_over_a_million_vectors():
    generator = torch.Generator().manual_seed(1)
    prototypes = normalize(torch.randn(1_000_000, 16, generator=generator), dim=1)
    owner = torch.arange(1_000_000) // 2
    queries = normalize(torch.randn(3, 16, generator=generator), dim=1)
    found = best_per_person(queries, prototypes, owner, 500_000)
    expected = (queries.numpy() @ prototypes.numpy().T).reshape(3, 500_000, 2).max(axis=2)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
    assert (found.argmax(1).numpy() == expected.argmax(1)).all()


def test_thumbnails_come_with_their_person(tmp_path):
    data = torch.tensor(list(b"firstsecondthird"), dtype=torch.uint8)
    tensors = {"thumbnails": data, "thumbnail_ends": torch.tensor([5, 11, 16])}
    (matches,) = gallery(tmp_path, tensors=tensors).search(torch.eye(128)[:1], top_k=3)
    assert {match.name: match.thumbnail for match in matches} == {
        "Ana": b"first",
        "Ben": b"second",
        "Carla": b"third",
    }


@pytest.mark.parametrize(
    "tensors",
    [
        {"prototypes": torch.zeros(3, 64)},
        {"owner": torch.tensor([0, 1, 3])},
        {"owner": torch.tensor([0, 1, 1])},
        {"owner": torch.tensor([0.0, 1.0, 2.0])},
        {"centre": torch.zeros(3)},
        {"prototypes": 5 * torch.eye(3, 128)},
        {"owner": torch.tensor(0)},
        {"thumbnails": torch.zeros(9, dtype=torch.uint8)},
        {
            "thumbnails": torch.zeros(9, dtype=torch.uint8),
            "thumbnail_ends": torch.tensor([3.0, 6.0, 9.0]),
        },
    ],
)
def test_tensors_that_do_not_fit_are_refused(tmp_path, tensors):
    with pytest.raises(BundleError, match="do not fit"):
        gallery(tmp_path, tensors=tensors)


def test_two_people_of_one_name_are_refused(tmp_path):
    with pytest.raises(BundleError, match="a name of their own"):
        gallery(tmp_path, people=("Ana", "Ana"))


def test_what_is_no_number_is_no_resemblance(tmp_path):
    broken = torch.tensor([[float("nan"), float("inf"), 0.1]])
    first, *others = gallery(tmp_path).scorer.matches([(torch.arange(3), broken.T)], 3)[0]
    assert first.name == "Carla"
    assert {match.verdict for match in others} == {Verdict.FAINT}
