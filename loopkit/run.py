"""One pass as data: Run says what to do, Trace is what came back. Interventions are values, so there is nothing to detach."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from loopkit.plan import Plan

Sublayer = Literal["attention", "mlp"]


@dataclass(frozen=True)
class Blend:
    """Visits ``start`` to ``stop - 1``, taken together, move the stream only so far: x <- x + weight * (F(x) - x)."""

    start: int
    stop: int
    weight: float


@dataclass(frozen=True)
class Run:
    """What to do in one pass. T is the length of the sequence, D the hidden size.

    ``gate[(visit, sublayer)]``, float32 ``[T]``, multiplies what that sublayer adds to the stream: 0 removes it there.
    ``overwrite[visit]``, float32 ``[T, D]`` or ``[B, T, D]``, replaces the stream that enters the visit; at the
    number of visits, the stream after the last.
    ``capture`` keeps the stream before each visit and what each sublayer added, after gate and scale.
    ``scale[visit]`` multiplies what both sublayers of a visit add to the stream; ``blend`` are spans that do not overlap.
    """

    plan: Plan
    gate: Mapping[tuple[int, Sublayer], np.ndarray] = field(default_factory=dict)
    overwrite: Mapping[int, np.ndarray] = field(default_factory=dict)
    capture: bool = False
    scale: Mapping[int, float] = field(default_factory=dict)
    blend: tuple[Blend, ...] = ()


@dataclass(frozen=True)
class Trace:
    """What a pass with ``capture`` returned, all float32.

    ``logits [B, T, V]``; ``resid [visits + 1, B, T, D]``, the stream before each visit and after the last, ahead of the
    final norm; ``attn`` and ``mlp [visits, B, T, D]``, what each sublayer added to the stream.
    """

    plan: Plan
    logits: np.ndarray
    resid: np.ndarray
    attn: np.ndarray
    mlp: np.ndarray


@dataclass(frozen=True)
class Rows:
    """Sequences that share a batch and may fork: int ``ids [B, T]``, padded at the end with any id.

    ``branch`` (int ``[B, T]``, None: no forks) numbers the branch of each position: 0 the trunk, 1, 2, ... its continuations,
    side by side. A position sees the trunk and its own branch, up to itself, and its place in the text counts those only.
    """

    ids: np.ndarray
    branch: np.ndarray | None = None

    def places(self) -> NDArray[np.int64]:
        """The place of each position in its text, int64 ``[B, T]``."""
        seen = self.seen()
        return np.broadcast_to(np.arange(self.ids.shape[1]), self.ids.shape) if seen is None else np.count_nonzero(seen, axis=-1) - 1

    def seen(self) -> NDArray[np.bool_] | None:
        """Which positions a position sees, bool ``[B, T, T]``; None where that is all up to itself."""
        if self.branch is None:
            return None
        own: NDArray[np.bool_] = (self.branch[:, None, :] == 0) | (self.branch[:, None, :] == self.branch[:, :, None])
        return own & np.tri(self.ids.shape[1], dtype=np.bool_)


@dataclass(frozen=True)
class Stream:
    """Rows on their way through a model, ``x [B, T, D]`` an array of the backend's own; ``context`` is the backend's affair."""

    x: Any
    context: Any

    def blend(self, later: "Stream", weight: float) -> "Stream":
        """``weight`` of the way from here to ``later``."""
        return replace(self, x=self.x + weight * (later.x - self.x))


@dataclass(frozen=True)
class Batch:
    """One step's rows, B of T tokens: int32 ``ids`` and the ``targets`` one further on.

    ``loss_mask`` (bool, None: all count) says which targets count. ``documents`` (int32, None unless asked for) numbers the
    document of each position within its row, from 0; a position attends to its own document only.
    """

    ids: np.ndarray
    targets: np.ndarray
    loss_mask: np.ndarray | None = None
    documents: np.ndarray | None = None


def by_row(places: np.ndarray, shape: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Sorted flat positions of ``[B, T]`` laid out by row, ``[B, W]``, W the most a row has: the row and column of each there, and
    the position in its row that each place of the layout holds (0 where there is none left)."""
    row, position = np.divmod(np.asarray(places, np.int64), shape[1])
    counts = np.bincount(row, minlength=shape[0])
    column = np.arange(len(places)) - (np.cumsum(counts) - counts)[row]
    positions = np.zeros((shape[0], counts.max()), np.int64)
    positions[row, column] = position
    return row, column, positions
