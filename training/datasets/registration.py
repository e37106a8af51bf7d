"""Whether two pictures of a face are one picture: registered, then compared place by place.

A picture that was encoded again, resized, cropped otherwise or recoloured is still the same one; a
second shot of the same scene is not, nor is a mirrored picture. Works on grey pictures; knows
nothing about files or people.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates, minimum_filter

from training.datasets import pictures

Grey = NDArray[np.float32]

SIDE_PX = 56
"""Of the pictures that are compared: enough to see lips and eyelids, little enough that a small
photo has it too."""

SAME = 0.96
"""Local correlation, at all but the least alike tenth of the places, from which two pictures are
one. `tests.benchmarks.near_copies` measures it."""

_DARK = 6.0
_LEAST_SHARE = 0.1
_LEAST_ALIKE = 0.1
_WINDOW_PX = 4.0
_SMOOTH_PX = 1.5
_COARSE_TO_FINE_PX = (2.0, 1.0)
_ROUNDS = 20
_STILL = 2e-3
_OUTLIER = 0.7
_RIDGE = 1e-3
_NOISE = 4.0
_DEEP = 1.0

_CENTRE = (SIDE_PX - 1) / 2
_V, _U = (np.mgrid[:SIDE_PX, :SIDE_PX] - _CENTRE) / _CENTRE


def grey(chip: NDArray[np.uint8]) -> Grey:
    """(SIDE_PX, SIDE_PX) of a face's (s, s, 3) crop on a template.

    Black, as where a crop reaches over its photo's edge, is taken for no picture at all.
    """
    return np.asarray(pictures.grey(chip, SIDE_PX), np.float32)


def same_picture(one: Grey, other: Grey) -> bool:
    """Whether two pictures, as `grey` makes them of one template, are one and the same."""
    return likeness(one, other) >= SAME


def likeness(one: Grey, other: Grey) -> float:
    """The local correlation of two registered pictures at their least alike places.

    Returns:
        -1 to 1: the tenth percentile over the places that both show; 0 where they share hardly any.
    """
    places = _places(_register(one, other))
    moved = map_coordinates(other, places, order=1, mode="nearest")
    both = _shown(one) * (map_coordinates(_shown(other), places, order=1) > 0.99)
    mask = minimum_filter(both, 3)
    if mask.mean() < _LEAST_SHARE:
        return 0.0
    left, right = (_around(each, mask, _SMOOTH_PX) for each in (one, moved))
    left, right = ((each - _around(each, mask)) * mask for each in (left, right))
    # What varies less than noise is alike: two clear skies are one sky.
    power = (_around(left**2, mask) + _DEEP) * (_around(right**2, mask) + _DEEP)
    local = (_around(left * right, mask) + _DEEP) / np.sqrt(power)
    return float(np.quantile(local[mask > 0], _LEAST_ALIKE))


def _register(one: Grey, other: Grey) -> NDArray[np.float64]:
    """(2, 3) affine map from places of one picture to the same ones of the other.

    Gauss-Newton from coarse to fine (Lucas and Kanade 1981) on pictures of equal local contrast, in
    which neither another brightness nor another gamma is seen; places that fit badly weigh less
    (Cauchy's weights). Coordinates go from -1 to 1.
    """
    found = np.eye(2, 3)
    shown, others_shown = _shown(one), _shown(other)
    inner = minimum_filter(others_shown, 3)
    for smooth in _COARSE_TO_FINE_PX:
        goal = _even(_around(one, shown, smooth), shown)
        start = _even(_around(other, others_shown, smooth), others_shown)
        slopes = [slope * _CENTRE for slope in np.gradient(start)]
        for _ in range(_ROUNDS):
            places = _places(found)
            down, right = (map_coordinates(slope, places, order=1) for slope in slopes)
            residual = goal - map_coordinates(start, places, order=1)
            weight = shown * (map_coordinates(inner, places, order=1) > 0.99)
            total = weight.sum()
            weight = weight / (1 + (residual / _OUTLIER) ** 2)
            steps = [right * _U, right * _V, right, down * _U, down * _V, down]
            jacobian = np.stack(steps).reshape(6, -1)
            weighted = jacobian * weight.ravel()
            ridge = _RIDGE * (total + 1) * np.eye(6)
            step = np.linalg.solve(weighted @ jacobian.T + ridge, weighted @ residual.ravel())
            found = found + step.reshape(2, 3)
            if np.abs(step).max() < _STILL:
                break
    return found


def _places(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """(2, SIDE_PX, SIDE_PX) rows and columns that an affine map gives."""
    (a, b, c), (d, e, f) = affine
    return np.stack([d * _U + e * _V + f, a * _U + b * _V + c]) * _CENTRE + _CENTRE


def _shown(picture: Grey) -> Grey:
    """1 where there is a picture, 0 where it is black."""
    return np.asarray(minimum_filter(picture > _DARK, 3), np.float32)


def _around(values: Grey, mask: Grey, width_px: float = _WINDOW_PX) -> Grey:
    """The mean around each place, over what the mask lets through."""
    mean: Grey = gaussian_filter(values * mask, width_px) / (gaussian_filter(mask, width_px) + 1e-6)
    return mean


def _even(picture: Grey, mask: Grey) -> Grey:
    """A picture of equal brightness and contrast around each place."""
    away = (picture - _around(picture, mask)) * mask
    even: Grey = away / np.sqrt(_around(away**2, mask) + _NOISE)
    return even
