"""How rare a similarity is that hardly any stranger reaches, from those that a tenth of them reach.

The empirical distribution ends at its highest value and is coarse before it. By the theorem of
Pickands (1975) and Balkema and de Haan (1974) what lies beyond a high threshold follows a
generalised Pareto distribution, whatever the distribution below: two parameters, which all the
exceedances determine together. They are estimated by probability-weighted moments (Hosking and
Wallis 1987), which have less variance than maximum likelihood for samples of this size and always
exist. Knows numbers; knows nothing about faces.
"""

import numpy as np
from numpy.typing import NDArray

from engine.bundle import TailRecord

RATE = 0.1
"""The share of strangers whose values the distribution is fitted to."""

FEWEST = 100
"""Values beyond the threshold, or the two parameters are mostly noise."""

_STEEPEST = -0.5
"""Below it a fit says that nothing lies beyond the highest value that was met."""


def fit(values: NDArray[np.float64], weight: NDArray[np.float64]) -> TailRecord | None:
    """The far end of a distribution.

    A similarity is bounded, so that the shape is at most 0: an exponential tail. (Sample shapes
    above it come from single values far out, such as a photo with a wrong name.)

    Args:
        values: (n,) similarities.
        weight: (n,) how much each counts, above 0.

    Returns:
        None where too few values lie beyond the threshold.
    """
    order = np.argsort(values, kind="stable")
    rising, share = values[order], weight[order] / weight.sum()
    below = np.cumsum(share) - share / 2
    start = float(np.interp(1 - RATE, below, rising))
    beyond = rising > start
    if beyond.sum() < FEWEST:
        return None
    excess, part = rising[beyond] - start, share[beyond] / share[beyond].sum()
    # Two moments: the mean, and the mean weighted by the chance to be exceeded.
    exceeded = 1 - (np.cumsum(part) - part / 2)
    mean, weighted = float((part * excess).sum()), float((part * excess * exceeded).sum())
    shape = min(0.0, max(_STEEPEST, 2 - mean / (mean - 2 * weighted)))
    # Given the shape, the mean tells the scale.
    return TailRecord(start=start, rate=RATE, shape=shape, scale=mean * (1 - shape))
