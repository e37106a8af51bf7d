import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from engine.people import prototypes
from engine.people.prototypes import Prototypes


def drawn(count, dimension=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(count, dimension, generator=generator), dim=1)


def closest(queries, vectors, owner, people):
    """The same, the slow way, in double precision."""
    cosines = queries.double().numpy() @ vectors.double().numpy().T
    return np.stack([cosines[:, owner.numpy() == i].max(axis=1) for i in range(people)], axis=1)


OWNERS = {
    "one_each": torch.arange(200),
    "two_each": torch.arange(200) // 2,
    "one_each_in_disorder": torch.arange(200).flip(0),
    "one_to_five_each": torch.cat([torch.arange(k, 60) for k in (0, 10, 20, 40, 59)]),
}


@pytest.mark.parametrize("queries", [1, 2, 9])
@pytest.mark.parametrize("kind", OWNERS)
@pytest.mark.parametrize("numbers", [64, 2**19])
def test_a_person_is_as_close_as_their_closest_prototype(kind, queries, numbers, monkeypatch):
    monkeypatch.setitem(prototypes._CACHED, "cpu", numbers)  # many parts, or one
    owner = OWNERS[kind]
    vectors, asked = drawn(len(owner)), drawn(queries, seed=1)
    known = Prototypes(vectors, owner)
    expected = closest(asked, vectors, owner, len(known))
    np.testing.assert_allclose(known.similarities(asked).numpy(), expected, atol=1e-6)


def test_everybody_comes_once():
    known = Prototypes(drawn(len(OWNERS["one_to_five_each"])), OWNERS["one_to_five_each"])
    people = torch.cat([part for part, _ in known.parts(drawn(3, seed=1))])
    assert sorted(people.tolist()) == list(range(60))


def test_no_queries():
    assert Prototypes(drawn(4), torch.arange(4)).similarities(torch.zeros(0, 8)).shape == (0, 4)


def test_one_each_in_order_is_not_copied():
    vectors = drawn(100)
    held = Prototypes(vectors, torch.arange(100))
    vectors.zero_()
    assert not held.similarities(drawn(2, seed=1)).any()
