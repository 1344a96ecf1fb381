r"""Recall of many values: assignments as in ``var-math``, then what variables drawn at random are worth; the last is asked. Five options.

``recall-0`` is ``a=3,b=8,c=1,d=5,e=7,d=5,a=3,d=5,b=8,...,c=?``, three statements for each variable; with a depth, variables stand for
others (``f=b``) and their values are still stated (``f=8``). As text it is multi-query associative recall (Arora et al. 2023,
*Zoology*): a model that reads it all is taught to look values up by a fifth of its tokens, where ``var-math`` teaches that by one.
"""

import numpy as np

from loopkit.data.counter import Bits, Ints, below, distinct, shuffled
from loopkit.data.tasks.assignment import MATH, NAMES, VALUES, WIDTH
from loopkit.data.tasks.registry import number_of, register
from loopkit.data.tasks.task import Instances, Task
from loopkit.errors import UsageError

PIECES = MATH.pieces + VALUES + NAMES
STATED = 3  # statements a variable
_EQUALS, _COMMA, _END, _VALUES = 1, 2, 4, len(MATH.pieces)


@register("recall", "recall-0", "recall-1")
def recall(number: int | None) -> Task:
    """Assignments ``number`` levels deep."""
    depth = number_of("recall", number, 0)
    count = WIDTH * (depth + 1)
    if count > len(NAMES):
        raise UsageError(f"recall-{depth} needs more variables than the {len(NAMES)} letters; at most recall-{len(NAMES) // WIDTH - 1}")
    return Task(f"recall-{depth}", PIECES, count + STATED * count + WIDTH * depth + len(VALUES), lambda random: _make(random, depth))


def _make(random: Bits, depth: int) -> Instances:
    count = WIDTH * (depth + 1)
    for_names, for_order, steps, for_values = np.split(random, np.cumsum([count, STATED * count, WIDTH * depth]), axis=1)
    variables = distinct(for_names, len(NAMES)) + _VALUES + len(VALUES)
    values = shuffled(for_values)[:, :WIDTH] + _VALUES
    worth = [np.tile(np.arange(WIDTH), (len(random), 1))]  # which of the values each variable has, by level
    right = [values]
    for level in range(1, depth + 1):
        source = shuffled(steps[:, WIDTH * (level - 1) : WIDTH * level])
        right.append(np.take_along_axis(variables[:, WIDTH * (level - 1) : WIDTH * level], source, axis=1))
        worth.append(np.take_along_axis(worth[-1], source, axis=1))
    order = below(for_order, count)  # with repeats, so that no value is left over by elimination
    stated = np.take_along_axis(np.concatenate(worth, axis=1), order, axis=1)
    left = np.concatenate([variables, np.take_along_axis(variables, order, axis=1)], axis=1)
    return Instances(
        _prompt(left, np.concatenate([*right, np.take_along_axis(values, stated, axis=1)], axis=1)), values[:, :, None], stated[:, -1]
    )


def _prompt(left: Ints, right: Ints) -> Ints:
    """``x=v,`` for each but the last, which is asked."""
    lines = np.stack([left, np.full_like(left, _EQUALS), right, np.full_like(left, _COMMA)], axis=2).reshape(len(left), -1)
    return np.concatenate([lines[:, :-3], np.full((len(left), 1), _END)], axis=1)
