"""Rows continued a few visits at a time, with keys and values by slot. See loopkit.backend.Decoding."""

from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np

from loopkit.run import Run, Stream
from loopkit.spec import Spec
from loopkit_mlx import model
from loopkit_mlx.memory import Weights


class Decoding:
    """See loopkit.backend.Decoding. Its arrays grow as they are needed, whatever ``batch`` and ``capacity`` say."""

    def __init__(self, weights: Weights, spec: Spec, slots: int, batch: int, capacity: int) -> None:
        from mlx_lm.models.cache import KVCache  # takes seconds to import

        self._weights, self._spec, self._length, self._width = weights, spec, 0, 0
        self._slots: list[Any] = [KVCache() for _ in range(slots)]

    def enter(self, ids: np.ndarray) -> Stream:
        """See loopkit.backend.Decoding.enter."""
        self._width = ids.shape[1]
        return Stream(model.embed(self._weights, self._spec, mx.array(ids)), model.View())

    def advance(self, stream: Stream, run: Run, first: int) -> Stream:
        """See loopkit.backend.Decoding.advance."""
        slots = self._slots[first : first + len(run.plan)]
        for slot in slots:
            slot.trim(slot.offset - self._length)
        x_BTD = model.visits(self._weights, self._spec, stream.x, run, stream.context, slots)
        mx.eval(x_BTD)
        return replace(stream, x=x_BTD)

    def keep(self, source: np.ndarray) -> None:
        """See loopkit.backend.Decoding.keep."""
        changed = [slot for slot in range(len(self._slots)) if (source[slot] != slot).any()]
        news = [
            [mx.concatenate([self._new(of)[part][row : row + 1] for row, of in enumerate(source[slot])]) for part in (0, 1)]
            for slot in changed
        ]
        for slot, (keys, values) in zip(changed, news, strict=True):
            self._slots[slot].trim(self._slots[slot].offset - self._length)
            self._slots[slot].update_and_fetch(keys, values)
        self._length += self._width
        mx.eval([(slot.keys, slot.values) for slot in self._slots])

    def _new(self, slot: int) -> tuple[mx.array, mx.array]:
        """Keys and values that a slot took up last, ``[B, G, T, K]``."""
        cache, end = self._slots[slot], self._length + self._width
        return cache.keys[..., self._length : end, :], cache.values[..., self._length : end, :]
