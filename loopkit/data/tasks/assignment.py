r"""Variable assignment (paper, appendix D.1): five values, ``depth`` levels of five new variables, one asked. Five options.

Each level's variables point to a permutation of the level below; a variable of the top level is asked. Values are 1 to 25:
D.1 shows values up to 23 and does not give the range. ``basic`` is D.1's form. D.1 does not show the other two, so these are
loopkit's own: ``math`` is the paper's example of section 3.2 (``a=3,b=8,c=a,d=b,c=?``), ``code`` a Python program
(``a = 3\nb = 8\nc = a\nprint(c)  #``).
"""

from dataclasses import dataclass
from keyword import kwlist
from string import ascii_lowercase

import numpy as np

from loopkit.data.counter import Bits, Ints, below, distinct, shuffled
from loopkit.data.tasks.registry import number_of, register
from loopkit.data.tasks.task import Instances, Task
from loopkit.errors import UsageError

WIDTH = 5  # variables a level
VALUES = tuple(map(str, range(1, 26)))
NAMES = tuple(ascii_lowercase)
LONG_NAMES = tuple(name for name in (a + b for a in NAMES for b in NAMES) if name not in kwlist)
_HEAD, _EQUALS, _END_LINE, _ASK, _END = range(5)
_FIXED = 5  # pieces before the values


@dataclass(frozen=True)
class Style:
    """The text around names and values."""

    head: str
    equals: str
    end_line: str
    ask: str
    end: str

    @property
    def pieces(self) -> tuple[str, ...]:
        """In the order of the piece numbers above."""
        return (self.head, self.equals, self.end_line, self.ask, self.end)


BASIC = Style("Fill in blank:\n\n", "=", "\n", "", "=___. ->")
MATH = Style("", "=", ",", "", "=?")
CODE = Style("", " = ", "\n", "print(", ")  #")


@register("var-basic", "var-basic-0", "var-basic-1", "var-basic-2")
def var_basic(number: int | None) -> Task:
    """Assignment in the form of D.1."""
    return _assignment("var-basic", BASIC, number)


@register("var-math", "var-math-0", "var-math-1", "var-math-2")
def var_math(number: int | None) -> Task:
    """Assignment as a chain of equations."""
    return _assignment("var-math", MATH, number)


@register("var-code", "var-code-0", "var-code-1", "var-code-2")
def var_code(number: int | None) -> Task:
    """Assignment as a Python program."""
    return _assignment("var-code", CODE, number)


def _assignment(family: str, style: Style, number: int | None) -> Task:
    depth = number_of(family, number, 0)
    names = NAMES if WIDTH * (depth + 1) <= len(NAMES) else LONG_NAMES
    if WIDTH * (depth + 1) > len(names):
        deepest = f"{family}-{len(names) // WIDTH - 1}"
        raise UsageError(f"{family}-{depth} needs more variables than the {len(names)} names there are; at most {deepest}")
    draws = WIDTH * (2 * depth + 1) + len(VALUES) + 1  # names, one permutation a level, values, the question
    pieces = style.pieces + VALUES + names
    return Task(f"{family}-{depth}", pieces, draws, lambda random: _make(random, depth, len(names)))


def _make(random: Bits, depth: int, n_names: int) -> Instances:
    cuts = np.cumsum([WIDTH * (depth + 1), WIDTH * depth, len(VALUES)])
    for_names, steps, for_values, for_query = np.split(random, cuts, axis=1)
    variables = distinct(for_names, n_names) + _FIXED + len(VALUES)
    values = shuffled(for_values)[:, :WIDTH] + _FIXED
    asked = below(for_query, WIDTH)
    right, answer = [values], np.tile(np.arange(WIDTH), (len(random), 1))
    for level in range(1, depth + 1):
        source = shuffled(steps[:, WIDTH * (level - 1) : WIDTH * level])
        right.append(np.take_along_axis(variables[:, WIDTH * (level - 1) : WIDTH * level], source, axis=1))
        answer = np.take_along_axis(answer, source, axis=1)
    query = np.take_along_axis(variables[:, -WIDTH:], asked, axis=1)
    prompt = _prompt(variables, np.concatenate(right, axis=1), query)
    return Instances(prompt, values[:, :, None], np.take_along_axis(answer, asked, axis=1)[:, 0])


def _prompt(left: Ints, right: Ints, query: Ints) -> Ints:
    n, lines = left.shape
    middle = np.empty((n, lines, 4), np.int64)
    middle[:, :, 0], middle[:, :, 1], middle[:, :, 2], middle[:, :, 3] = left, _EQUALS, right, _END_LINE
    column = np.ones((n, 1), np.int64)
    return np.concatenate([_HEAD * column, middle.reshape(n, -1), _ASK * column, query, _END * column], axis=1)
