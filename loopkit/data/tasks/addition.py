"""Addition of several numbers (Saunshi et al. 2025: operands 0 to 999, three digits each). Five options.

The text form is loopkit's own: digits apart, so that each is a token in any tokenizer, and sums padded to the widest:
``0 5 7 + 9 1 2 = 0 9 6 9``. The wrong options are the sum off by 1, 10 or 100.
"""

import numpy as np

from loopkit.data.counter import Bits, Ints, below, shuffled
from loopkit.data.tasks.registry import number_of, register
from loopkit.data.tasks.task import Instances, Task

PIECES = (*map(str, range(10)), " ", " + ", " =")
_SPACE, _PLUS, _EQUALS = 10, 11, 12
OFFSETS = np.array([-100, -10, -1, 1, 10, 100])
_OPTIONS = 5


@register("addition", "addition-2", "addition-8", "addition-16")
def addition(number: int | None) -> Task:
    """The sum of ``number`` operands."""
    operands = number_of("addition", number, 2)
    return Task(f"addition-{operands}", PIECES, operands + len(OFFSETS) + 1, lambda random: _make(random, operands))


def _make(random: Bits, operands: int) -> Instances:
    terms = below(random[:, :operands], 1000)
    width = len(str(999 * operands))
    wrong = OFFSETS[shuffled(random[:, operands:-1])[:, : _OPTIONS - 1]]
    offsets = np.concatenate([np.zeros((len(random), 1), np.int64), wrong], axis=1)
    answer = below(random[:, -1], _OPTIONS)
    order = (np.arange(_OPTIONS) - answer[:, None]) % _OPTIONS
    sums = (terms.sum(axis=1, keepdims=True) + np.take_along_axis(offsets, order, axis=1)) % 10**width
    prompt = _digits(terms, 3, _PLUS).reshape(len(random), -1)
    prompt[:, -1] = _EQUALS
    return Instances(prompt, _digits(sums, width, _SPACE)[:, :, :-1], answer)


def _digits(numbers: Ints, width: int, after: int) -> Ints:
    """Pieces of zero-padded numbers, a space between digits and ``after`` behind each: ``[..., 2 * width]``."""
    pieces = np.full((*numbers.shape, 2 * width), _SPACE, np.int64)
    pieces[..., ::2] = numbers[..., None] // 10 ** np.arange(width - 1, -1, -1) % 10
    pieces[..., -1] = after
    return pieces
