"""Does a series over depth repeat? Autocorrelation against chance."""

from dataclasses import dataclass

import numpy as np

from loopkit.probes.common import Array

SHUFFLES = 1000
LARGEST = 0.9  # quantile of the steps' sizes at which they are cut
LEVEL = 0.01  # how often chance may look as periodic


@dataclass(frozen=True)
class Period:
    """``length`` in visits, 0 where there is none; ``strength``: the autocorrelation at it; ``chance``: the share of shuffled series
    with one as strong."""

    length: int
    strength: float
    chance: float


def find_period(values: Array, seed: int = 0) -> Period:
    """The period of ``values [n]``, by the highest peak of the autocorrelation of their steps, lags 2 to n / 2.

    Steps take the trend out, cutting the largest tenth of them keeps an odd first or last visit from deciding, and the sum over n (not
    over what overlaps) prefers a period to its multiples. A peak counts where at most one in a hundred shuffles of the
    values has as high a one.
    """
    lag, strength = _peak(_autocorrelation(np.asarray(values)[None]))
    if not lag[0]:
        return Period(0, 0.0, 1.0)
    rng = np.random.default_rng(seed)
    shuffled = rng.permuted(np.tile(values, (SHUFFLES, 1)), axis=1)
    chance = float((1 + (_peak(_autocorrelation(shuffled))[1] >= strength[0]).sum()) / (1 + SHUFFLES))
    return Period(int(lag[0]) if chance <= LEVEL else 0, float(strength[0]), chance)


def _autocorrelation(series: Array) -> Array:
    """Of each row ``[rows, n]`` at lags 1 to n / 2 + 1: ``[rows, lags]``."""
    steps = _cut(np.diff(series, axis=1))
    size = steps.shape[1]
    power = np.maximum((steps**2).sum(1), 1e-12)
    lags = range(1, min(size, series.shape[1] // 2 + 2))
    found = [(steps[:, : size - lag] * steps[:, lag:]).sum(1) / power for lag in lags]
    return np.array(found).T.reshape(len(series), len(found))


def _peak(correlation: Array) -> tuple[Array, Array]:
    """Lag and height of the highest positive local peak of each row from lag 2 on, 0 and 0 without one."""
    if correlation.shape[1] < 3:
        return np.zeros(len(correlation), int), np.zeros(len(correlation))
    left, middle, right = correlation[:, :-2], correlation[:, 1:-1], correlation[:, 2:]
    heights = np.where((middle > left) & (middle >= right), np.maximum(middle, 0), 0)
    best = heights.argmax(1)
    strength = heights[np.arange(len(heights)), best]
    return np.where(strength > 0, best + 2, 0), strength


def _cut(steps: Array) -> Array:
    """Steps around their mean, none larger than nine tenths of them are."""
    if not steps.size:
        return steps
    largest = np.quantile(np.abs(steps), LARGEST, axis=1, keepdims=True)
    cut = np.clip(steps, -largest, largest)
    return cut - cut.mean(1, keepdims=True)  # type: ignore[no-any-return]
