"""Rows of exactly T + 1 tokens from a long row of documents, at random access: no padding, no state."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from loopkit.data.counter import Ints, below, bits, permute, subkeys
from loopkit.data.tokenizers import Ids

Mask = NDArray[np.bool_]


class Rows(Protocol):
    """A source of rows by number; the same number is always the same row."""

    def rows(self, numbers: Ints) -> tuple[Ids, Mask | None]:
        """Ids ``[n, T + 1]``, and which of them count as targets (None: all)."""
        ...


@dataclass(frozen=True)
class PackedRows:
    """Documents end to end, the last joined to the first, cut into rows that share one token with the next.

    An epoch visits ``size`` rows in an order of its own, from a cut of its own: each token is a target once, but for the
    fewer than T that the cut leaves over. ``shuffle=False`` keeps order and cut (held-out text).
    """

    tokens: NDArray[Any]
    length: int
    stream: np.uint64
    shuffle: bool = True

    @property
    def size(self) -> int:
        """Rows an epoch, at least one: text shorter than a row comes round again within it."""
        return max(1, len(self.tokens) // self.length)

    def rows(self, numbers: Ints) -> tuple[Ids, Mask | None]:
        """Rows by number, epoch after epoch."""
        start = self._starts(numbers)[:, None]
        where = start + np.arange(self.length + 1)
        return self.tokens[where % len(self.tokens)].astype(np.int32), None

    def _starts(self, numbers: Ints) -> Ints:
        epochs, positions = np.divmod(numbers, self.size)
        if not self.shuffle:
            return positions * self.length
        order = permute(subkeys(self.stream, epochs), self.size, positions)
        cut = below(bits(self.stream, epochs, 2)[:, 1], len(self.tokens))
        return cut + order * self.length
