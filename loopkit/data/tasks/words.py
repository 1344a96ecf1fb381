"""Real English words: the 2048 of BIP-39, a list fixed by a standard, from the package ``mnemonic`` (MIT licence).

The words of the standard library would differ with the Python version; these are the same wherever the package is.
"""

from functools import lru_cache

import numpy as np

from loopkit.data.counter import key, permute


@lru_cache(maxsize=1)
def english() -> tuple[str, ...]:
    """All 2048 words, three to eight letters each, in a fixed mixed order: the first n are spread over the alphabet."""
    from mnemonic import Mnemonic

    words = Mnemonic("english").wordlist
    return tuple(words[i] for i in permute(key("english words"), len(words), np.arange(len(words))))
