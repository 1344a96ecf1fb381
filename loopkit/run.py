"""One pass as data: Run says what to do, Trace is what came back. Interventions are values, so there is nothing to detach."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from loopkit.plan import Plan

Sublayer = Literal["attention", "mlp"]


@dataclass(frozen=True)
class Run:
    """What to do in one pass. T is the length of the sequence, D the hidden size.

    ``gate[(visit, sublayer)]``, float32 ``[T]``, multiplies what that sublayer adds to the stream: 0 removes it there.
    ``overwrite[visit]``, float32 ``[T, D]`` or ``[B, T, D]``, replaces the stream that enters the visit.
    ``capture`` keeps the stream before each visit and what each sublayer added.
    """

    plan: Plan
    gate: Mapping[tuple[int, Sublayer], np.ndarray] = field(default_factory=dict)
    overwrite: Mapping[int, np.ndarray] = field(default_factory=dict)
    capture: bool = False


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
class Batch:
    """One step's rows, B of T tokens: int32 ``ids`` and the ``targets`` one further on.

    ``loss_mask`` (bool, None: all count) says which targets count. ``documents`` (int32, None unless asked for) numbers the
    document of each position within its row, from 0; a position attends to its own document only.
    """

    ids: np.ndarray
    targets: np.ndarray
    loss_mask: np.ndarray | None = None
    documents: np.ndarray | None = None
