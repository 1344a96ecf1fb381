"""Recall of many values: variables and what they are worth, then each once more in another order; at last one is asked. Five options.

``recall-0`` is ``a 3 b 8 c 1 d 5 e 7 d 5 a 3 e 7 c 1 b 8 c``, to be continued with 1; with a depth, variables stand for others
(``f b``) and are still stated with their values (``f 8``). ``recall-basic``, ``recall-math`` and ``recall-code`` have the signs of
assignment in those styles (``a=3,b=8,``). As text it is multi-query associative recall (Arora et al. 2023, *Zoology*):
a model that reads it all is taught to look values up by a quarter of its tokens, where ``var-basic`` teaches that by one.
"""

import numpy as np

from loopkit.data.counter import Bits, Ints, below, distinct, shuffled
from loopkit.data.tasks.assignment import BASIC, CODE, MATH, NAMES, VALUES, WIDTH
from loopkit.data.tasks.registry import number_of, register
from loopkit.data.tasks.task import Instances, Task
from loopkit.errors import UsageError

_EQUALS, _END_LINE, _ASK, _VALUES = range(4)


@register("recall", "recall-0", "recall-1")
def recall(number: int | None) -> Task:
    """Variables ``number`` levels deep, nothing but spaces between them and their values."""
    return _recall("recall", " ", " ", number)


@register("recall-basic", "recall-basic-0", "recall-basic-1")
def recall_basic(number: int | None) -> Task:
    """The same with the signs of ``var-basic``."""
    return _recall("recall-basic", BASIC.equals, BASIC.end_line, number)


@register("recall-math", "recall-math-0", "recall-math-1")
def recall_math(number: int | None) -> Task:
    """The same with the signs of ``var-math``."""
    return _recall("recall-math", MATH.equals, MATH.end_line, number)


@register("recall-code", "recall-code-0", "recall-code-1")
def recall_code(number: int | None) -> Task:
    """The same with the signs of ``var-code``."""
    return _recall("recall-code", CODE.equals, CODE.end_line, number)


def _recall(family: str, equals: str, end_line: str, number: int | None) -> Task:
    depth = number_of(family, number, 0)
    count = WIDTH * (depth + 1)
    if count > len(NAMES):
        raise UsageError(f"{family}-{depth} needs more variables than the {len(NAMES)} letters; at most {family}-{len(NAMES) // WIDTH - 1}")
    draws, pieces = 2 * count + 1 + WIDTH * depth + len(VALUES), (equals, end_line, equals.rstrip(), *VALUES, *NAMES)
    return Task(f"{family}-{depth}", pieces, draws, lambda random: _make(random, depth))


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
    """A name, a sign, what it is worth, an end of line; the last is asked."""
    equals, end_line = np.full_like(left, _EQUALS), np.full_like(left, _END_LINE)
    rows: Ints = np.stack([left, equals, right, end_line], axis=2).reshape(len(left), -1)[:, :-2]
    rows[:, -1] = _ASK
    return rows
