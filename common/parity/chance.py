"""Bounds for random samples: how far a sample may be from its distribution before a check rejects it.

Each function returns a distance divided by its bound. For a correct sample the result exceeds 1 with a probability of
at most `FALSE_ALARM`, for every sample size and without approximation. `same_share`, `same_distribution` and
`reaches_sample_ends` compare with a sample of the reference. Both samples can be off there, so the probability is at
most twice `FALSE_ALARM`. A parity run makes fewer than five thousand comparisons: fewer than one false alarm in 1e9
runs.

With n draws, the bound on a share or on a cumulative distribution is sqrt(15 / n): 0.16 for 600 draws, 0.08 for 2,400
and 0.036 for 12,000. A deviation of twice the bound is almost always rejected. One of half the bound never is.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[Any]
FALSE_ALARM = 1e-13
SAMPLE = 50_000  # draws of the reference, which a framework's draws are compared with


def bound(n: int) -> float:
    """Return the deviation that a share or a distribution of n draws exceeds with probability `FALSE_ALARM`.

    For shares this is Hoeffding's inequality (1963). For cumulative distributions it is the inequality of Dvoretzky,
    Kiefer and Wolfowitz with Massart's constant (1990). Both are 2 exp(-2 n bound^2).
    """
    return math.sqrt(math.log(2 / FALSE_ALARM) / (2 * max(n, 1)))


def share(drawn: Values, p: float, error: float = 0.0) -> float:
    """Compare how often ``drawn``, bool (n,), is true with the probability ``p``, which may be off by ``error``."""
    return max(0.0, abs(float(np.mean(drawn)) - p) - error) / bound(len(drawn))


def same_share(drawn: Values, expected: Values) -> float:
    """Compare how often two samples, bool (n,) and (m,), are true. Return inf if the first is empty."""
    if not len(drawn):
        return math.inf
    difference = abs(float(np.mean(drawn)) - float(np.mean(expected)))
    return difference / (bound(len(drawn)) + bound(len(expected)))


def uniform(values: Values, error: float = 0.0) -> float:
    """Compare the distribution of values (n,) with the uniform one on 0..1; each value may be off by ``error``."""
    ordered, n = np.sort(values), len(values)
    above = np.arange(1, n + 1) / n - (ordered + error).clip(0, 1)  # too many values up to here
    below = (ordered - error).clip(0, 1) - np.arange(n) / n
    return max(0.0, float(above.max()), float(below.max())) / bound(n)


def same_distribution(values: Values, expected: Values) -> float:
    """Compare the distribution of values (n,) with that of ``expected`` (m,), which is sorted.

    Return inf if there are no values.
    """
    ordered, n, m = np.sort(values), len(values), len(expected)
    if not n:
        return math.inf
    # Two step functions differ most at a step or just before it. Equal values form one step.
    differences = [
        np.searchsorted(ordered, ordered, side) / n - np.searchsorted(expected, ordered, side) / m
        for side in ("left", "right")
    ]
    return float(np.abs(differences).max()) / (bound(n) + bound(m))


def reaches_ends(values: Values, error: float = 0.0) -> float:
    """Check that values (n,), uniform on 0..1 and off by ``error``, come close to 0 and 1 but not beyond.

    The probability that none of n values is below x is (1 - x)^n.
    """
    low, high = float(values.min()), float(1 - values.max())
    reach = 1 - (FALSE_ALARM / 2) ** (1 / len(values))
    gap = (max(low, high) - error) / reach
    outside = -min(low, high) / (error or 1e-9)
    return max(0.0, gap, outside)


def reaches_sample_ends(values: Values, expected: Values) -> float:
    """Return 0 if values (n,) come as close to both ends of a distribution as n draws do; otherwise return inf.

    ``expected`` (m,) is a sample of that distribution. The probability that n values all miss a share q at one end is
    `FALSE_ALARM` / 2. The end is the region that contains a share 2 q of the sample. By Chernoff's inequality (1952),
    the distribution's share of that region is below q with a probability of at most (e / 4)^(m q).

    Return inf if there are too few values to decide: 2 q is then more than a half. Raise ValueError if there are so
    many values that (e / 4)^(m q) exceeds `FALSE_ALARM` / 2.
    """
    n, m = len(values), len(expected)
    q = 1 - (FALSE_ALARM / 2) ** (1 / n)
    if m * q * (math.log(4) - 1) < math.log(2 / FALSE_ALARM):
        raise ValueError(f"a sample of {m} is too small to compare the ends of {n} values")
    if 2 * q > 0.5:
        return math.inf
    low, high = np.quantile(expected, [2 * q, 1 - 2 * q], method="inverted_cdf")
    return must_hold(bool(values.min() <= low and values.max() >= high))


def must_hold(condition: bool | np.bool_) -> float:
    """Return 0 if ``condition`` is true, otherwise inf. Use it for conditions that do not depend on chance."""
    return 0.0 if condition else math.inf


def none_happened(happened: Values, probabilities: Values) -> float:
    """Return how improbable it is that none of n independent events has happened; return 0 if one has.

    The result is 1 for a probability of at most `FALSE_ALARM`, because the product of all 1 - p is at most exp(-sum of
    p).
    """
    return 0.0 if happened.any() else float(probabilities.sum() / math.log(1 / FALSE_ALARM))
