"""Batches as a pure function of (seed, step): no state to save, the same after any resume and on every backend."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np

from loopkit.data.counter import Ints, key, permute, subkeys
from loopkit.data.packing import Mask, Rows
from loopkit.data.tokenizers import Ids
from loopkit.errors import UsageError
from loopkit.run import Batch as Batch

BLOCK = 4096  # rows in which every source has its exact share


@dataclass(frozen=True)
class Batches:
    """Rows of several sources by share, B = ``rows`` a step and process. ``after`` others, they begin at step ``began``."""

    sources: Mapping[str, Rows]
    shares: tuple[float, ...]
    rows: int
    seed: int
    end_id: int
    documents: bool = False
    before: "Batches | None" = None
    began: int = 0

    def after(self, before: "Batches", step: int) -> "Batches":
        """These batches from ``step`` on: a source of both goes on with the row where ``before`` left it, another one begins."""
        return replace(self, before=before, began=step)

    def at(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """The batch of a step. With several processes each gets its own rows; together they make the batch of all rows."""
        assert step >= 0 and 0 <= rank < world
        first = (step * world + rank) * self.rows
        source, within = self._assign(np.arange(first, first + self.rows))
        return self._batch(source, within + self._ahead(self.began * world * self.rows)[source])

    def numbered(self, numbers: Ints) -> Batch:
        """The rows of any numbers; ``at`` counts them through the run."""
        return self._batch(*self._assign(numbers))

    def _batch(self, source: Ints, within: Ints) -> Batch:
        ids, mask = self._gather(source, within)
        inputs = np.ascontiguousarray(ids[:, :-1])
        documents = _documents(inputs, self.end_id) if self.documents else None
        return Batch(inputs, np.ascontiguousarray(ids[:, 1:]), None if mask is None else mask[:, 1:].copy(), documents)

    @cached_property
    def _counts(self) -> tuple[int, ...]:
        return block_counts(self.shares)

    def _assign(self, numbers: Ints) -> tuple[Ints, Ints]:
        """Which source each row comes from, and which of that source's rows it is: each source goes through its own in order."""
        blocks, positions = np.divmod(numbers, BLOCK)
        source, within = np.empty_like(numbers), np.empty_like(numbers)
        for block in np.unique(blocks):
            here = blocks == block
            sources, places = _block(self._counts, self.seed, int(block))
            source[here] = sources[positions[here]]
            within[here] = places[positions[here]] + block * np.array(self._counts)[source[here]]
        return source, within

    def _given(self, rows: int) -> Ints:
        """How many of the first ``rows`` rows are each source's."""
        block, rest = divmod(rows, BLOCK)
        sources, _ = _block(self._counts, self.seed, block)
        return block * np.array(self._counts) + np.bincount(sources[:rest], minlength=len(self._counts))

    def _ahead(self, began: int) -> Ints:
        """What to add to each source's row numbers from row ``began`` of the run on."""
        if self.before is None:
            return np.zeros(len(self.sources), np.int64)
        given = dict(zip(self.before.sources, self.before._given(began), strict=True))
        return np.array([given.get(name, 0) for name in self.sources]) - self._given(began)

    def _gather(self, source: Ints, within: Ints) -> tuple[Ids, Mask | None]:
        """Ids ``[n, T + 1]`` and mask of rows from several sources."""
        rows = tuple(self.sources.values())
        found = [(source == i, *rows[i].rows(within[source == i])) for i in np.unique(source)]
        length = found[0][1].shape[1]
        ids = np.empty((len(source), length), np.int32)
        mask = None if all(some is None for _, _, some in found) else np.ones(ids.shape, np.bool_)
        for where, these, some in found:
            ids[where] = these
            if mask is not None and some is not None:
                mask[where] = some
        return ids, mask


@lru_cache(maxsize=16)
def _block(counts: tuple[int, ...], seed: int, block: int) -> tuple[Ints, Ints]:
    """The sources of a block's rows, in mixed order, and how many rows of the same source come before each: ``[BLOCK]``."""
    order = permute(subkeys(key("mixture", seed), np.array([block])), BLOCK, np.arange(BLOCK))
    sources = np.repeat(np.arange(len(counts)), counts)[order]
    places = np.empty(BLOCK, np.int64)
    for i, count in enumerate(counts):
        places[sources == i] = np.arange(count)
    return sources, places


def block_counts(shares: Sequence[float]) -> tuple[int, ...]:
    """Rows of each source in a block: the largest remainders are rounded up. Raises UsageError at a share below 1/4096."""
    exact = np.array(shares) / sum(shares) * BLOCK
    if exact.min() < 1:
        raise UsageError(f"the smallest weight is {exact.min() / BLOCK:.1e} of the mixture; a source needs at least 1/{BLOCK}")
    counts = np.floor(exact).astype(np.int64)
    short = BLOCK - int(counts.sum())
    counts[np.argsort(counts - exact, kind="stable")[:short]] += 1
    return tuple(counts.tolist())


def _documents(ids: Ids, end_id: int) -> Ids:
    """Document numbers within each row: an end-of-text token begins the document after it."""
    ends = np.cumsum(ids == end_id, axis=1)
    numbers: Ids = (ends - ends[:, :1]).astype(np.int32)
    return numbers
