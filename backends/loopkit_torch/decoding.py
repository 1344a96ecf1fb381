"""Rows continued a few visits at a time, with keys and values by slot. See loopkit.backend.Decoding."""

from dataclasses import replace

import numpy as np
import torch

from loopkit.run import Run, Stream
from loopkit.spec import Spec
from loopkit_torch import model
from loopkit_torch.memory import Weights


class Decoding:
    """See loopkit.backend.Decoding."""

    def __init__(self, weights: Weights, spec: Spec, slots: int, batch: int, capacity: int) -> None:
        self._weights, self._spec, self._width = weights, spec, 0
        self._cache = model.new_cache(weights, spec, tuple(range(slots)), batch, capacity)

    @torch.inference_mode()
    def enter(self, ids: np.ndarray) -> Stream:
        """See loopkit.backend.Decoding.enter."""
        x_BTD = model.embed(self._weights, torch.from_numpy(np.ascontiguousarray(ids, np.int64)).to(self._cache.keys.device))
        self._width = ids.shape[1]
        rotary = model.rotary_tables(self._spec, self._cache.length, self._width, x_BTD.device, x_BTD.dtype)
        return Stream(x_BTD, model.View(rotary))

    @torch.inference_mode()
    def advance(self, stream: Stream, run: Run, first: int) -> Stream:
        """See loopkit.backend.Decoding.advance."""
        cache = replace(self._cache, slots=tuple(range(first, first + len(run.plan))))
        return replace(stream, x=model.visits(self._weights, self._spec, stream.x, run, stream.context, cache))

    @torch.inference_mode()
    def keep(self, source: np.ndarray) -> None:
        """See loopkit.backend.Decoding.keep."""
        end = self._cache.length + self._width
        slot = torch.from_numpy(source).to(self._cache.keys.device)
        row = torch.arange(source.shape[1], device=slot.device)
        for part_SBGCK in (self._cache.keys, self._cache.values):
            new = part_SBGCK[:, :, :, self._cache.length : end]
            new.copy_(new[slot, row])
        self._cache.length = end
