"""Random numbers without state: number j of item i is a function of (key, i, j), the same on every machine, forever.

SplitMix64 (Steele, Lea and Flood, 2014) mixes a counter, so any item is had without those before it and whole arrays of items
at once. NumPy's own streams promise neither (NEP 19 lets them change between versions).
"""

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint64]
Ints = NDArray[np.int64]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio, SplitMix64's step
_WIDE = 12  # bits from which four rounds of a Feistel network suffice (Luby and Rackoff, 1988); narrow ones mix slowly


def key(*parts: str | int) -> np.uint64:
    """A 64-bit key from names and numbers; different parts give unrelated keys."""
    text = "\x1f".join(map(str, parts))
    return np.uint64(int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little"))


def mix(x: Bits) -> Bits:
    """SplitMix64's finaliser: a bijection of 64-bit words whose output bits look independent."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def bits(stream: np.uint64 | Bits, numbers: Ints, count: int) -> Bits:
    """``count`` random words for each numbered item, of one stream or a stream each (``[n, 1]``): uint64 ``[n, count]``."""
    within: Bits = np.arange(1, count + 1).astype(np.uint64)
    counters: Bits = numbers.astype(np.uint64)[:, None] * np.uint64(count)
    return mix(stream + (counters + within) * GOLDEN)


def subkeys(stream: np.uint64, numbers: Ints) -> Bits:
    """One key for each numbered item, e.g. an epoch: uint64 ``[n]``."""
    return bits(stream, numbers, 1)[:, 0]


def below(words: Bits, size: int) -> Ints:
    """Uniform integers from 0 to ``size - 1``; the bias of the remainder is under size / 2**64."""
    return (words % np.uint64(size)).astype(np.int64)


def distinct(words: Bits, size: int) -> Ints:
    """``k`` different integers below ``size`` in random order, from random words ``[n, k]``: int64 ``[n, k]``.

    The i-th draw picks among the ``size - i`` still free; it steps over the j-th smallest of those taken where that one,
    less the j before it, does not lie above.
    """
    chosen = np.empty(words.shape[::-1], np.int64)
    chosen[0] = below(words[:, 0], size)
    for i in range(1, len(chosen)):
        value = below(words[:, i], size - i)
        taken = np.sort(chosen[:i], axis=0) - np.arange(i)[:, None]
        chosen[i] = value + (taken <= value).sum(axis=0)
    return chosen.T


def shuffled(words: Bits) -> Ints:
    """A random order of the columns, for each row: int64 ``[n, columns]``."""
    return np.argsort(words, axis=1)


def permute(keys: Bits | np.uint64, size: int, positions: Ints) -> Ints:
    """Where a random permutation of ``size`` items sends each position, without building it.

    ``keys`` choose the permutation, one for all positions or one for each. A Feistel network with cycle walking: results
    outside the range go through again until they fall inside.
    """
    width = max(2, (size - 1).bit_length())
    x = _feistel(keys, width, positions.astype(np.uint64))
    outside = np.flatnonzero(x >= size)
    while len(outside):
        x[outside] = _feistel(np.broadcast_to(keys, x.shape)[outside], width, x[outside])
        outside = outside[x[outside] >= size]
    return x.astype(np.int64)


def _feistel(keys: Bits | np.uint64, width: int, x: Bits) -> Bits:
    """A permutation of ``width``-bit numbers; halves of unequal width take turns."""
    low = width // 2
    masks = np.array([(1 << (width - low)) - 1, (1 << low) - 1], np.uint64)
    left, right = x >> np.uint64(low), x & masks[1]
    for number in range(4 if width >= _WIDE else 12):
        salt = mix(np.atleast_1d(keys) + np.full(1, number, np.uint64) * GOLDEN)  # arrays wrap around in silence, scalars warn
        left, right = right, left ^ (mix(salt ^ right) & masks[number % 2])
    mixed: Bits = (left << np.uint64(low)) | right
    return mixed
