"""What the tasks on small numbers share: the numbers, one operation on a running value, and options near the answer."""

import numpy as np
from numpy.typing import NDArray

from loopkit.data.counter import Bits, Ints, below, shuffled

MOST = 99
NUMBERS = tuple(map(str, range(MOST + 1)))  # the first pieces of a task: the piece of a number is that number
SIGNS = (" + ", " - ", " * ")
LARGEST_FIRST = 50  # what a running value begins with
TERMS, FACTORS = 20, range(2, 10)  # what is added or taken away is at most 20
OPTIONS = 5
STEP_DRAWS, OPTION_DRAWS = 2, 1 + OPTIONS  # random words of ``operation`` and of ``near``


def operation(random: Bits, value: Ints) -> tuple[Ints, Ints, Ints]:
    """A sign (its place in ``SIGNS``), an operand and the result for each value, all ``[n]``; results stay within 0 to ``MOST``."""
    term, factor = below(random[:, 0], TERMS) + 1, below(random[:, 0], len(FACTORS)) + FACTORS[0]
    results = np.stack([value + term, value - term, value * factor])
    sign = one_of(random[:, 1], within(results))
    return sign, np.where(sign == SIGNS.index(" * "), factor, term), results[sign, np.arange(len(value))]


def within(results: Ints) -> NDArray[np.bool_]:
    """Which results are numbers that there are."""
    return (results >= 0) & (results <= MOST)


def one_of(random: Bits, allowed: NDArray[np.bool_]) -> Ints:
    """A uniform draw from the rows that each column allows: ``[n]`` of ``allowed [rows, n]``, one or more in each column."""
    chosen = (random % allowed.sum(axis=0).astype(np.uint64)).astype(np.int64)
    first: Ints = (np.cumsum(allowed, axis=0) > chosen).argmax(axis=0)
    return first


def near(random: Bits, value: Ints) -> tuple[Ints, Ints]:
    """Five neighbouring numbers in random order, ``[n, 5, 1]``, and which of them is the value, ``[n]``.

    The value is as often the smallest as the middle or the largest, but for the first and last four numbers.
    """
    lowest = np.clip(value - below(random[:, 0], OPTIONS), 0, MOST + 1 - OPTIONS)
    options = lowest[:, None] + shuffled(random[:, 1:])
    return options[:, :, None], (options == value[:, None]).argmax(axis=1)
