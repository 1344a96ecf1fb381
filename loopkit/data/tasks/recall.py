"""Recall of many values: variables and what they are worth, then each once more in another order; at last one is asked. Five options.

``recall-0`` is ``a 3 b 8 c 1 d 5 e 7 d 5 a 3 e 7 c 1 b 8 c``, to be continued with 1; with a depth, variables stand for others
(``f b``) and are still stated with their values (``f 8``). As text it is multi-query associative recall (Arora et al. 2023, *Zoology*):
a model that reads it all is taught to look values up by a quarter of its tokens, where ``var-basic`` teaches that by one.
"""

import numpy as np

from loopkit.data.counter import Bits, Ints, below, distinct, shuffled
from loopkit.data.tasks.assignment import NAMES, VALUES, WIDTH
from loopkit.data.tasks.registry import number_of, register
from loopkit.data.tasks.task import Instances, Task
from loopkit.errors import UsageError

PIECES = (" ", *VALUES, *NAMES)
_SPACE, _VALUES = 0, 1


@register("recall", "recall-0", "recall-1")
def recall(number: int | None) -> Task:
    """Variables ``number`` levels deep."""
    depth = number_of("recall", number, 0)
    count = WIDTH * (depth + 1)
    if count > len(NAMES):
        raise UsageError(f"recall-{depth} needs more variables than the {len(NAMES)} letters; at most recall-{len(NAMES) // WIDTH - 1}")
    return Task(f"recall-{depth}", PIECES, 2 * count + 1 + WIDTH * depth + len(VALUES), lambda random: _make(random, depth))


def _make(random: Bits, depth: int) -> Instances:
    count = WIDTH * (depth + 1)
    for_names, for_order, for_query, steps, for_values = np.split(random, np.cumsum([count, count, 1, WIDTH * depth]), axis=1)
    variables = distinct(for_names, len(NAMES)) + _VALUES + len(VALUES)
    values = shuffled(for_values)[:, :WIDTH] + _VALUES
    worth = [np.tile(np.arange(WIDTH), (len(random), 1))]  # which of the values each variable has, by level
    right = [values]
    for level in range(1, depth + 1):
        source = shuffled(steps[:, WIDTH * (level - 1) : WIDTH * level])
        right.append(np.take_along_axis(variables[:, WIDTH * (level - 1) : WIDTH * level], source, axis=1))
        worth.append(np.take_along_axis(worth[-1], source, axis=1))
    order = np.concatenate([shuffled(for_order), below(for_query, count)], axis=1)  # one more than all: no value is left over for the last
    stated = np.take_along_axis(np.concatenate(worth, axis=1), order, axis=1)
    left = np.concatenate([variables, np.take_along_axis(variables, order, axis=1)], axis=1)
    return Instances(
        _prompt(left, np.concatenate([*right, np.take_along_axis(values, stated, axis=1)], axis=1)), values[:, :, None], stated[:, -1]
    )


def _prompt(left: Ints, right: Ints) -> Ints:
    """``x v `` for each but the last, which is asked."""
    space = np.full_like(left, _SPACE)
    return np.stack([left, space, right, space], axis=2).reshape(len(left), -1)[:, :-3]
