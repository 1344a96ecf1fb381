"""Sampled recurrence: a block of the plan runs a number of times drawn anew each step (Geiping et al. 2025, Huginn).

The text form is ``8:12~4``: positions 8 to 11 run four times on average. Options follow: ``8:12~4,sigma=0.5,max=16,backprop=2``.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from loopkit.errors import UsageError
from loopkit.plan import Plan, repeat

EXAMPLE = "example: 8:12~4 or 8:12~4,sigma=0.5,max=16,backprop=2"
SIGMA = 0.5
_OPTIONS: dict[str, Callable[[str], float]] = {"sigma": float, "max": int, "backprop": int}


@dataclass(frozen=True)
class Recurrence:
    """Positions ``start`` to ``stop - 1`` of a plan run ``mean`` times on average, from 1 to ``max`` times (4 * mean by default).

    ``sigma`` is the spread of the log of the rate. Of more than ``backprop`` repetitions only the last ``backprop`` get gradients;
    None gives them to all.
    """

    start: int
    stop: int
    mean: float
    sigma: float = SIGMA
    max: int | None = None
    backprop: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", float(self.mean))
        object.__setattr__(self, "sigma", float(self.sigma))
        problems = {
            "the range must not be empty": not 0 <= self.start < self.stop,
            "the mean must be from 1 to 1000": not 1 <= self.mean <= 1000,
            "sigma must be from 0 to 2": not 0 <= self.sigma <= 2,
            "max must be no less than the mean": self.max is not None and self.max < self.mean,
            "backprop must be 1 or more": self.backprop is not None and self.backprop < 1,
        }
        for problem, present in problems.items():
            if present:
                raise UsageError(f"recurrence {str(self)!r}: {problem}; {EXAMPLE}")

    @property
    def most(self) -> int:
        """The largest repeat count."""
        return math.ceil(4 * self.mean) if self.max is None else self.max

    def __str__(self) -> str:
        sigma = "" if self.sigma == SIGMA else f",sigma={_number(self.sigma)}"
        most = "" if self.max is None else f",max={self.max}"
        backprop = "" if self.backprop is None else f",backprop={self.backprop}"
        return f"{self.start}:{self.stop}~{_number(self.mean)}{sigma}{most}{backprop}"


def parse_recurrence(text: str) -> Recurrence:
    """``8:12~4`` with its options, in any order, as a Recurrence; ``str`` gives the shortest text back. Raises UsageError."""
    head, *options = (part.strip() for part in text.split(","))
    match = re.fullmatch(r"(\d+):(\d+)~(\d+(?:\.\d+)?)", head)
    if not match:
        raise UsageError(f"bad part {head!r} in recurrence {text!r}; {EXAMPLE}")
    values: dict[str, Any] = {}
    for option in options:
        name, _, value = option.partition("=")
        try:
            values[name] = _OPTIONS[name](value)
        except (KeyError, ValueError):
            raise UsageError(f"bad part {option!r} in recurrence {text!r}; {EXAMPLE}") from None
    return Recurrence(int(match[1]), int(match[2]), float(match[3]), **values)


def draw(recurrence: Recurrence, plan: Plan, seed: int, step: int) -> tuple[Plan, int | None]:
    """The plan of one training step, and the visit at which gradients stop on their way down; None where all visits get them.

    Where they stop, what lies below the block learns nothing at this step. Raises UsageError where the range is outside ``plan``.
    """
    times = count(recurrence, seed, step)
    drawn = repeat(plan, recurrence.start, recurrence.stop, times)
    kept = times if recurrence.backprop is None else min(times, recurrence.backprop)
    cut = recurrence.start + (times - kept) * (recurrence.stop - recurrence.start)
    return drawn, cut if kept < times else None


def count(recurrence: Recurrence, seed: int, step: int) -> int:
    """The repeat count of one step: 1 + Poisson(rate), rate ~ LogNormal(ln(mean - 1) - sigma**2 / 2, sigma), at most ``most``.

    Geiping et al. 2025 (Huginn) give the rate itself the mean, so that their counts average one more; here the counts average
    ``mean`` but for the cap. The streams of NumPy's RandomState are frozen, so the draw is a function of seed and step alone.
    """
    if recurrence.mean == 1:
        return 1
    generator = np.random.RandomState(np.random.MT19937(np.random.SeedSequence((seed, step))))
    rate = generator.lognormal(math.log(recurrence.mean - 1) - recurrence.sigma**2 / 2, recurrence.sigma)
    return min(1 + int(generator.poisson(rate)), recurrence.most)


def _number(value: float) -> str:
    return repr(value).removesuffix(".0")
