"""Twins among many faces, where the search goes by cells."""

import numpy as np

from training.datasets import twins


def faces(count, planted, noise):
    """Random faces; the last ones are twins of the first."""
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(count, 32)).astype(np.float32)
    grey = generator.integers(0, 256, (count, 16, 16), np.uint8)
    changed = noise * generator.normal(size=(planted, 32)).astype(np.float32)
    vectors[-planted:] = vectors[:planted] + changed
    grey[-planted:] = np.clip(grey[:planted].astype(int) + 5, 0, 255)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors, grey


def found(pairs, count, planted):
    expected = {(i, count - planted + i) for i in range(planted)}
    return expected & set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))


def test_many_faces_are_searched_as_well_as_few():
    count, planted = 30_000, 300
    vectors, grey = faces(count, planted, noise=0.3)
    assert count > twins._EXACT_UP_TO
    pairs = twins.find(vectors, grey, (0.9, 0.85))
    assert len(found(pairs, count, planted)) >= 0.98 * planted
    # Nothing else: other faces' grey pictures have nothing to do with each other.
    assert len(pairs.first) == len(found(pairs, count, planted))


def test_few_faces_are_searched_exactly():
    vectors, grey = faces(500, 50, noise=0.3)
    pairs = twins.find(vectors, grey, (0.9, 0.85))
    assert len(found(pairs, 500, 50)) == 50
    assert (pairs.signature > 0.9).all()
    assert (pairs.similarity > 0.85).all()
    assert (pairs.first < pairs.second).all()
