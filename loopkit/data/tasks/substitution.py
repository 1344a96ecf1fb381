"""Chains of substitutions: each variable is the one before with an operation, the last is asked. Five neighbouring numbers.

``a = 4; b = a + 3; d = a - 1; c = b - 2; c = ?`` is a chain of two (``b``, ``c``); ``d`` leads nowhere: one such line stands at a
random place behind what it is made of. Operations are those of ``arithmetic``, results lie within 0 to 99.
"""

from string import ascii_lowercase

import numpy as np

from loopkit.data.counter import Bits, Ints, below, distinct
from loopkit.data.tasks.numbers import LARGEST_FIRST, NUMBERS, OPTION_DRAWS, SIGNS, STEP_DRAWS, near, operation
from loopkit.data.tasks.registry import number_of, register
from loopkit.data.tasks.task import Instances, Task
from loopkit.errors import UsageError

NAMES = tuple(ascii_lowercase)
PIECES = (*NUMBERS, *NAMES, *SIGNS, " = ", "; ", " = ?")
_NAME, _SIGN, _EQUALS = len(NUMBERS), len(NUMBERS) + len(NAMES), len(NUMBERS) + len(NAMES) + len(SIGNS)
_NEXT, _ASK = _EQUALS + 1, _EQUALS + 2
LONGEST = len(NAMES) - 2  # the chain's first variable and the one that leads nowhere have names, too


@register("substitution", "substitution-1", "substitution-2", "substitution-4")
def substitution(number: int | None) -> Task:
    """The value of a variable after ``number`` substitutions."""
    steps = number_of("substitution", number, 1)
    if steps > LONGEST:
        raise UsageError(f"substitution-{steps} needs more variables than the {len(NAMES)} letters; at most substitution-{LONGEST}")
    draws = steps + 2 + 1 + 2 + (steps + 1) * STEP_DRAWS + OPTION_DRAWS  # names, value, source and place of the line apart, operations
    return Task(f"substitution-{steps}", PIECES, draws, lambda random: _make(random, steps))


def _make(random: Bits, steps: int) -> Instances:
    cuts = np.cumsum([steps + 2, 1, 2, (steps + 1) * STEP_DRAWS])
    for_names, for_first, for_apart, for_lines, for_options = np.split(random, cuts, axis=1)
    names = distinct(for_names, len(NAMES)) + _NAME
    source, place = np.sort(below(for_apart, steps + 1), axis=1).T
    made_of = np.append(np.tile(np.arange(steps), (len(random), 1)), source[:, None], axis=1)  # the last line is the one apart
    values, lines, each = np.empty((len(random), steps + 2), np.int64), [], np.arange(len(random))
    values[:, 0] = below(for_first[:, 0], LARGEST_FIRST) + 1
    for number, words in enumerate(np.split(for_lines, steps + 1, axis=1)):
        sign, operand, values[:, number + 1] = operation(words, values[each, made_of[:, number]])
        lines.append(_line(names[:, number + 1], names[each, made_of[:, number]], sign + _SIGN, operand))
    prompt = _prompt(names, values[:, 0], np.stack(lines, axis=1), place)
    return Instances(prompt, *near(for_options, values[:, steps]))


def _line(name: Ints, source: Ints, sign: Ints, operand: Ints) -> Ints:
    """``b = a + 3; ``"""
    return np.stack([name, np.full_like(name, _EQUALS), source, sign, operand, np.full_like(name, _NEXT)], axis=1)


def _prompt(names: Ints, first: Ints, lines: Ints, place: Ints) -> Ints:
    """The first variable, the lines with the last of them moved to its place, and the question."""
    n, count = lines.shape[:2]
    order = np.argsort(np.append(np.tile(np.arange(count - 1.0), (n, 1)), place[:, None] - 0.5, axis=1), axis=1)
    moved = np.take_along_axis(lines, order[:, :, None], axis=1).reshape(n, -1)
    head = np.stack([names[:, 0], np.full(n, _EQUALS), first, np.full(n, _NEXT)], axis=1)
    return np.concatenate([head, moved, names[:, -2, None], np.full((n, 1), _ASK)], axis=1)
