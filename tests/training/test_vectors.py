import numpy as np

from training.vectors import grouped, mean_face, numbered, person_means, thinned, unit

OWNER = np.array([2, 0, 2, 1, 0])


def test_the_faces_of_each_person_are_found():
    assert [part.tolist() for part in grouped(OWNER, 4)] == [[1, 4], [3], [0, 2], []]


def test_everybody_weighs_alike_in_the_mean_face():
    vectors = np.array([[0, 4], [3, 0], [0, 2], [0, 9], [5, 0]], np.float32)
    means = person_means(vectors, OWNER, 4)
    assert means.tolist() == [[4, 0], [0, 9], [0, 3], [0, 0]]
    assert mean_face(vectors, 10 * OWNER).tolist() == means[:3].mean(axis=0).tolist()


def test_a_row_without_direction_has_none():
    assert unit(np.array([[3, 4], [0, 0]], np.float32)).tolist() == [
        [np.float32(0.6), np.float32(0.8)],
        [0, 0],
    ]


def test_equal_values_get_equal_numbers():
    assert numbered(["b", "a", "b", "c"]).tolist() == [1, 0, 1, 2]
    assert numbered(10 * OWNER).dtype == np.int64


def test_thinned_evenly():
    assert thinned(np.arange(10), 4).tolist() == [0, 3, 6, 9]
    assert thinned(np.arange(3), 4).tolist() == [0, 1, 2]
