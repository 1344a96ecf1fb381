"""Arithmetic with parentheses: N operations on small numbers, from the inside out. Five options, neighbouring numbers.

``9 * ((20 - 13) + 3) =``: an operation adds or takes away 1 to 20 or multiplies by 2 to 9, such that every result lies within
0 to 99; what is added and a factor stand on either side. The first number is 1 to 50.
"""

import numpy as np
from numpy.typing import NDArray

from loopkit.data.counter import Bits, Ints, below
from loopkit.data.tasks.numbers import LARGEST_FIRST, NUMBERS, OPTION_DRAWS, SIGNS, STEP_DRAWS, near, operation
from loopkit.data.tasks.registry import number_of, register
from loopkit.data.tasks.task import Instances, Task

PIECES = (*NUMBERS, *SIGNS, "(", ")", " =", "")
_PLUS, _MINUS, _TIMES, _OPEN, _CLOSE, _EQUALS, _NOTHING = range(len(NUMBERS), len(PIECES))


@register("arithmetic", "arithmetic-1", "arithmetic-2", "arithmetic-4")
def arithmetic(number: int | None) -> Task:
    """The value of an expression of ``number`` operations."""
    operations = number_of("arithmetic", number, 1)
    draws = 1 + operations * (STEP_DRAWS + 1) + OPTION_DRAWS
    return Task(f"arithmetic-{operations}", PIECES, draws, lambda random: _make(random, operations))


def _make(random: Bits, operations: int) -> Instances:
    value = below(random[:, 0], LARGEST_FIRST) + 1
    written = value[:, None]
    for words in np.split(random[:, 1:-OPTION_DRAWS], operations, axis=1):
        sign, operand, value = operation(words, value)
        written = _around(written, sign + _PLUS, operand, below(words[:, -1], 2) == 1)
    options, answer = near(random[:, -OPTION_DRAWS:], value)
    return Instances(np.append(written, np.full((len(random), 1), _EQUALS), axis=1), options, answer)


def _around(inner: Ints, sign: Ints, operand: Ints, left: NDArray[np.bool_]) -> Ints:
    """What is written so far, in parentheses unless it is a number, with a sign and an operand behind it or to its left."""
    bare = inner.shape[1] == 1
    left = left & (sign != _MINUS) & (not bare)  # 3 + 4 would be written in two ways, one for training, one held out
    opening, closing = (np.full(len(inner), _NOTHING if bare else each) for each in (_OPEN, _CLOSE))
    before = [np.where(left, operand, _NOTHING), np.where(left, sign, _NOTHING), opening]
    behind = [closing, np.where(left, _NOTHING, sign), np.where(left, _NOTHING, operand)]
    return np.concatenate([np.stack(before, axis=1), inner, np.stack(behind, axis=1)], axis=1)
