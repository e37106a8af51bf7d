import pytest
import torch

from engine.people.shortlist import shortlist


def in_parts(similarity, sizes):
    """(n, people) similarities as `shortlist` takes them."""
    people = torch.arange(similarity.shape[1])
    pairs = zip(people.split(sizes), similarity.T.split(sizes), strict=True)
    return [(part.clone(), values.contiguous()) for part, values in pairs]


@pytest.mark.parametrize("temperature", [0.05, 1e-6, 3.0])
@pytest.mark.parametrize("length", [1, 5, 40])
@pytest.mark.parametrize("size", [1, 37, 700, 5000])
def test_what_a_softmax_and_a_top_k_over_everybody_say(size, length, temperature):
    generator = torch.Generator().manual_seed(0)
    similarity = torch.rand(3, 5000 if size > 1 else 90, generator=generator) * 1.6 - 0.8
    people, values, shares = shortlist(in_parts(similarity, size), length, temperature)
    expected, best = similarity.topk(length, dim=1)
    torch.testing.assert_close(values, expected, rtol=0, atol=0)
    assert (people == best).all()
    softmax = torch.softmax(similarity.double() / temperature, dim=1).gather(1, best)
    torch.testing.assert_close(shares.double(), softmax, rtol=1e-4, atol=1e-7)


def test_the_best_may_come_last():
    similarity = torch.full((1, 4000), -0.9)
    similarity[0, -1] = 0.9
    people, _, shares = shortlist(in_parts(similarity, 900), 2, 1e-3)
    assert people[0, 0] == 3999
    assert shares[0, 0] == 1


def test_fewer_people_than_asked_for():
    people, values, shares = shortlist(in_parts(torch.tensor([[0.1, 0.3]]), 1), 9, 0.05)
    assert people.tolist() == [[1, 0]]
    assert values.tolist() == [[pytest.approx(0.3), pytest.approx(0.1)]]
    assert shares.sum() == pytest.approx(1)


@pytest.mark.parametrize("size", [200, 1000])
def test_what_is_no_number_is_no_resemblance(size):
    similarity = torch.zeros(1, 1000)
    similarity[0, 10], similarity[0, 20], similarity[0, 30] = float("nan"), float("inf"), 0.5
    people, values, shares = shortlist(in_parts(similarity, size), 3, 0.05)
    assert people[0, 0] == 30
    assert values[0].tolist() == [0.5, 0, 0]
    assert shares.isfinite().all()
