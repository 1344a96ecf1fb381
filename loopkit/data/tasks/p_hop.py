"""p-hop induction (Sanford et al. 2024; Saunshi et al. 2025): follow ``p`` times "what came after the last such letter".

Letters of a four-letter alphabet, no two neighbours alike (a hop from equal neighbours would stand still); one hop goes from
position i to the one after the latest earlier place that holds the same letter. The asked letter is the last; four options.
The literature uses 256 letters for 16 to 32 hops; shorter chains get 16 letters a hop. The text form is loopkit's own:
``a c b ... d a -> b``.
"""

import numpy as np

from loopkit.data.counter import Bits, Ints, below
from loopkit.data.tasks.registry import number_of, register
from loopkit.data.tasks.task import Instances, Task

ALPHABET = ("a", "b", "c", "d")
PIECES = (*ALPHABET, " ", " ->")
_SPACE, _ASK = len(ALPHABET), len(ALPHABET) + 1


@register("p-hop", "p-hop-4", "p-hop-16", "p-hop-32")
def p_hop(number: int | None) -> Task:
    """The last letter's p-th hop."""
    p = number_of("p-hop", number, 1)
    length = max(min(16 * p, 256), 5 * p)  # a hop goes back three letters on average
    return Task(f"p-hop-{p}", PIECES, length, lambda random: _make(random, p))


def _make(random: Bits, p: int) -> Instances:
    n, length = random.shape
    letters = _sequence(random)
    at = np.full(n, length - 1)
    before = _previous(letters)
    for _ in range(p):
        at = np.where(at >= 0, before[np.arange(n), at] + 1, -1)
        at[at == 0] = -1  # no earlier place: the chain leaves the sequence
    prompt = np.full((n, 2 * length), _SPACE, np.int64)
    prompt[:, ::2], prompt[:, -1] = letters, _ASK
    options = np.broadcast_to(np.arange(len(ALPHABET))[None, :, None], (n, len(ALPHABET), 1)).copy()
    return Instances(prompt, options, letters[np.arange(n), at], at >= 0)


def _sequence(random: Bits) -> Ints:
    """Letters ``[n, length]``: each differs from the one before."""
    steps = below(random, len(ALPHABET) - 1) + 1
    steps[:, 0] = below(random[:, 0], len(ALPHABET))
    return np.cumsum(steps, axis=1) % len(ALPHABET)


def _previous(letters: Ints) -> Ints:
    """The latest earlier position of the same letter, -1 where there is none: ``[n, length]``."""
    positions = np.arange(letters.shape[1])
    before = np.full(letters.shape, -1)
    for letter in range(len(ALPHABET)):
        seen = np.maximum.accumulate(np.where(letters == letter, positions, -1), axis=1)
        before[:, 1:] = np.where(letters[:, 1:] == letter, seen[:, :-1], before[:, 1:])
    return before
