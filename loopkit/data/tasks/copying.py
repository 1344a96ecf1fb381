"""Copying (paper, appendix D.1): ten words, then five of them again; which comes next? Ten options, the words.

``copy-random`` draws from all three-letter strings, ``copy-words`` from real words. A number keeps only so many words
(``copy-words-200``), for models too small for the full vocabulary.
"""

from itertools import product
from string import ascii_lowercase

import numpy as np

from loopkit.data.counter import Bits, Ints, below, distinct, key, permute
from loopkit.data.tasks.registry import register
from loopkit.data.tasks.task import Instances, Task
from loopkit.data.tasks.words import english
from loopkit.errors import UsageError

LENGTH, REPEATED = 10, 5
PIECES = ("Fill in the blank:\n", " ", " ___. ->")
_HEAD, _SPACE, _ASK = range(3)


@register("copy-random", "copy-random", "copy-random-200")
def copy_random(number: int | None) -> Task:
    """Copying of random three-letter words."""
    words = np.array(["".join(letters) for letters in product(ascii_lowercase, repeat=3)], dtype=object)
    mixed = words[permute(key("random words"), len(words), np.arange(len(words)))]
    return _copying("copy-random", tuple(mixed), number)


@register("copy-words", "copy-words", "copy-words-200")
def copy_words(number: int | None) -> Task:
    """Copying of real words."""
    return _copying("copy-words", english(), number)


def _copying(family: str, words: tuple[str, ...], number: int | None) -> Task:
    if number is not None and not LENGTH <= number <= len(words):
        raise UsageError(f"{family} takes {LENGTH} to {len(words)} words, got {number}; e.g. {family}-200")
    name = family if number is None else f"{family}-{number}"
    words = words[:number]
    return Task(name, PIECES + words, LENGTH + 2, lambda random: _make(random, len(words)))


def _make(random: Bits, n_words: int) -> Instances:
    words = distinct(random[:, :LENGTH], n_words) + len(PIECES)
    start = below(random[:, LENGTH], LENGTH - REPEATED)
    again = np.take_along_axis(words, start[:, None] + np.arange(REPEATED), axis=1)
    shift = below(random[:, LENGTH + 1], LENGTH)  # options in turned order, so that no position is likelier
    options = np.take_along_axis(words, (shift[:, None] + np.arange(LENGTH)) % LENGTH, axis=1)
    answer = (start + REPEATED - shift) % LENGTH
    return Instances(_prompt(np.concatenate([words, again], axis=1)), options[:, :, None], answer)


def _prompt(words: Ints) -> Ints:
    prompt = np.full((len(words), 2 * words.shape[1] + 1), _SPACE, np.int64)
    prompt[:, 0], prompt[:, -1] = _HEAD, _ASK
    prompt[:, 1:-1:2] = words
    return prompt
