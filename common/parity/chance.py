"""Bounds on chance: how far a sample may be from its distribution before a check rejects it.

Each function returns a distance divided by its bound. A correct sample exceeds 1 with a probability of at most
`FALSE_ALARM`, for every sample size and without any approximation. For functions that compare with a sample of the
reference's, it is at most twice that, as each of both samples may be off: `same_share`, `same_distribution` and
`ends_of_sample`. A parity run makes fewer than five thousand comparisons, so all of them together raise less than one
false alarm in 1e9 runs.

With n draws the bound on a share, or on a cumulative distribution, is sqrt(15 / n): 0.16 for 600 draws, 0.08 for 2,400
and 0.036 for 12,000. A deviation of twice the bound is practically always rejected; one of half the bound never is.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[Any]
FALSE_ALARM = 1e-13
SAMPLE = 50_000  # draws of the reference that a framework's are compared with


def bound(n: int) -> float:
    """Return what the share of n draws, or their cumulative distribution, is off by with probability `FALSE_ALARM`.

    For shares that is Hoeffding's inequality (1963), for distributions that of Dvoretzky, Kiefer and Wolfowitz with
    Massart's constant (1990): both 2 exp(-2 n bound^2).
    """
    return math.sqrt(math.log(2 / FALSE_ALARM) / (2 * max(n, 1)))


def share(drawn: Values, p: float, error: float = 0.0) -> float:
    """Compare how often ``drawn``, bool (n,), is true with the probability ``p``, which may be off by ``error``."""
    return max(0.0, abs(float(np.mean(drawn)) - p) - error) / bound(len(drawn))


def same_share(drawn: Values, wanted: Values) -> float:
    """Compare how often two samples, bool (n,) and (m,), are true. Return inf if the first is empty."""
    if not len(drawn):
        return math.inf
    apart = abs(float(np.mean(drawn)) - float(np.mean(wanted)))
    return apart / (bound(len(drawn)) + bound(len(wanted)))


def uniform(values: Values, error: float = 0.0) -> float:
    """Compare the distribution of values (n,) with the uniform one on 0..1; each value may be off by ``error``."""
    ordered, n = np.sort(values), len(values)
    above = np.arange(1, n + 1) / n - (ordered + error).clip(
        0, 1
    )  # more values up to here than there should be
    below = (ordered - error).clip(0, 1) - np.arange(n) / n
    return max(0.0, float(above.max()), float(below.max())) / bound(n)


def same_distribution(values: Values, wanted: Values) -> float:
    """Compare the distribution of values (n,) with that of ``wanted`` (m,), which is in ascending order.

    Return inf if there are no values.
    """
    ordered, n, m = np.sort(values), len(values), len(wanted)
    if not n:
        return math.inf
    # The distance of two steps functions is largest at or just before a step; values that are equal are one step.
    apart = [
        np.searchsorted(ordered, ordered, side) / n - np.searchsorted(wanted, ordered, side) / m
        for side in ("left", "right")
    ]
    return float(np.abs(apart).max()) / (bound(n) + bound(m))


def ends(values: Values, error: float = 0.0) -> float:
    """Return whether values (n,), uniform on 0..1 and off by ``error``, come near 0 and 1 and go no further.

    The probability that none of n values is below x is (1 - x)^n.
    """
    low, high = float(values.min()), float(1 - values.max())
    reach = 1 - (FALSE_ALARM / 2) ** (1 / len(values))
    gap = (max(low, high) - error) / reach
    outside = -min(low, high) / (error or 1e-9)
    return max(0.0, gap, outside)


def ends_of_sample(values: Values, wanted: Values) -> float:
    """Return 0 if values (n,) come as near to both ends of a distribution as n draws do, else inf.

    ``wanted`` (m,) is a sample of that distribution. n values miss a share q at one end with a probability of
    `FALSE_ALARM` / 2. The end is where twice that share of the sample lies: the share of the distribution there is less
    than q with a probability of at most (e / 4)^(m q), by Chernoff's inequality (1952). Return inf if there are too few
    values to tell, for which 2 q is more than a half. Raise ValueError if there are so many that (e / 4)^(m q) exceeds
    `FALSE_ALARM` / 2.
    """
    n, m = len(values), len(wanted)
    q = 1 - (FALSE_ALARM / 2) ** (1 / n)
    if m * q * (math.log(4) - 1) < math.log(2 / FALSE_ALARM):
        raise ValueError(f"a sample of {m} cannot tell the ends of {n} values")
    if 2 * q > 0.5:
        return math.inf
    low, high = np.quantile(wanted, [2 * q, 1 - 2 * q], method="inverted_cdf")
    return certainly(bool(values.min() <= low and values.max() >= high))


def certainly(right: bool | np.bool_) -> float:
    """Return 0 if ``right``, else inf: for what does not depend on chance."""
    return 0.0 if right else math.inf


def never(happened: Values, probabilities: Values) -> float:
    """Return how improbable it is that none of n independent events has happened; 0 if one has.

    1 is a probability of at most `FALSE_ALARM`, as the product of all 1 - p is at most exp(-sum of p).
    """
    return 0.0 if happened.any() else float(probabilities.sum() / math.log(1 / FALSE_ALARM))
