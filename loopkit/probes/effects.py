"""What removing a visit at early positions does to later ones: on the output (depth score), on every later visit with the change
propagated (future effects), and on each later visit alone (local effects).

Definitions: paper, appendix E, after Csordas et al. (2025): what a visit adds is removed at positions 1 to t - 1, the change is measured
from t on. Their code draws up to four t a prompt from 8, 16, ...; here it is one unless ``cuts`` says more. Position 0, which models use
as a place to attend to when nothing else matters, stays.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from loopkit.errors import UsageError
from loopkit.plan import Plan
from loopkit.probes.common import Array, bootstrap, interval, log_softmax, order, prompts, traced, unembed, visit, watched
from loopkit.probes.result import Chart, Curve, Grid, Headline, Result
from loopkit.progress import Progress, quiet
from loopkit.session import Depth, Model

LEAST = 4  # tokens of a prompt: one that stays, one that changes, one to measure at, one to spare
FLOOR = 1e-6  # of the norm that a change is divided by
ROWS = 512  # positions whose logits are held at a time


@dataclass(frozen=True, eq=False)
class DepthScore(Result):
    """``changes [examples, visits]``: largest L2 change of the softmax at later positions; ``distribution [visits]``: its mean over
    examples, summing to 1; ``score``: the expected index of a visit, from 0."""

    probe: ClassVar[str] = "depth-score"
    score: float
    score_low: float
    score_high: float
    distribution: np.ndarray
    changes: np.ndarray

    @property
    def headline(self) -> Headline:
        """The score, and as a share of the depth."""
        spread = {"95% interval": f"{self.score_low:.2f} to {self.score_high:.2f}"} if len(self.changes) > 2 else {}
        return {"depth score": self.score, **spread, "of the depth": self.score / max(len(self.distribution) - 1, 1)}

    @property
    def charts(self) -> tuple[Chart, ...]:
        """The change by visit, as the paper's figure 2 A sums up."""
        low, high = interval(self.changes)
        return (Curve("Change of the output when a visit is removed", "visit removed", "max L2 change", self.changes.mean(0), low, high),)


@dataclass(frozen=True, eq=False)
class Effects(Result):
    """``matrix [s, l]``: relative change of what visit l adds when visit s is removed, the largest over examples and positions;
    NaN where l is not after s."""

    matrix: np.ndarray

    @property
    def headline(self) -> Headline:
        """The mean over pairs, and the depth score of the row sums, each divided by the number of later visits."""
        rows = np.nansum(self.matrix, 1) / np.maximum(np.isfinite(self.matrix).sum(1), 1)
        return {"mean effect": float(np.nanmean(self.matrix)), "depth score of the rows": expected_index(rows)}


@dataclass(frozen=True, eq=False)
class FutureEffects(Effects):
    """Effects with the change propagated through the visits between."""

    probe: ClassVar[str] = "future-effects"

    @property
    def charts(self) -> tuple[Chart, ...]:
        """The matrix."""
        return (Grid("Future effects", "visit changed", "visit removed", self.matrix),)


@dataclass(frozen=True, eq=False)
class LocalEffects(Effects):
    """Effects on each later visit alone, nothing propagated (the paper's figures 4 and 13)."""

    probe: ClassVar[str] = "local-effects"

    @property
    def charts(self) -> tuple[Chart, ...]:
        """The matrix."""
        return (Grid("Local effects", "visit changed", "visit removed", self.matrix),)


def depth_score(
    model: Model, ids: np.ndarray, plan: Depth = None, *, cuts: int = 1, seed: int = 0, progress: Progress = quiet
) -> DepthScore:
    """How deep the visits lie that the output depends on (paper, appendix E): for each visit the largest L2 change of the softmax at
    later positions when it is removed at earlier ones, averaged over the prompts, normalised over visits, expected index.

    ids ``[B, T]``, four tokens or more; ``cuts`` positions t are drawn for each prompt with ``seed``.
    """
    visits, rows = order(model, plan), prompts(ids, LEAST)
    changes = np.array([_propagated(model, row, visits, t)[1] for row, t in _with_cuts(rows, cuts, seed, progress)])
    low, high = bootstrap(changes, lambda drawn: expected_index(drawn.mean(0)), seed)
    mean = changes.mean(0)
    return DepthScore(model.text(visits), expected_index(mean), low, high, mean / (mean.sum() or 1.0), changes)


def future_effects(
    model: Model, ids: np.ndarray, plan: Depth = None, *, cuts: int = 1, seed: int = 0, progress: Progress = quiet
) -> FutureEffects:
    """Relative change of what each visit adds at later positions when an earlier visit is removed at earlier positions, propagated."""
    visits, rows = _several(order(model, plan)), prompts(ids, LEAST)
    found = [_propagated(model, row, visits, t)[0] for row, t in _with_cuts(rows, cuts, seed, progress)]
    return FutureEffects(model.text(visits), np.max(found, 0))


def local_effects(
    model: Model, ids: np.ndarray, plan: Depth = None, *, cuts: int = 1, seed: int = 0, progress: Progress = quiet
) -> LocalEffects:
    """The same without propagation: visit s's contribution is taken from the stream that enters visit l, and nothing else changes
    (paper, appendix E, "future local effects"). Each layer runs once on a batch of all visits below it."""
    visits, rows = _several(order(model, plan)), prompts(ids, LEAST)
    found = [_local(model, row, visits, t) for row, t in _with_cuts(rows, cuts, seed, progress)]
    return LocalEffects(model.text(visits), np.max(found, 0))


def _several(visits: Plan) -> Plan:
    """The visits. Raises UsageError where there is no later one."""
    if len(visits) < 2:
        raise UsageError("effects on later visits need a plan of two visits or more")
    return visits


def expected_index(weights: Array) -> float:
    """The mean index under ``weights [n]``, 0 where they are all 0."""
    return float((np.arange(len(weights)) * weights).sum() / (weights.sum() or 1.0))


def draw_cuts(length: int, count: int, rng: np.random.Generator) -> Array:
    """Positions to measure from: up to ``count`` of 8, 16, ... up to four before the end, the middle of shorter prompts."""
    choices = np.arange(8, length - 4, 8)
    return np.sort(rng.choice(choices, min(count, len(choices)), replace=False)) if len(choices) else np.array([length // 2])


def _with_cuts(rows: np.ndarray, count: int, seed: int, progress: Progress) -> Iterator[tuple[np.ndarray, Array]]:
    if count < 1:
        raise UsageError(f"cuts must be 1 or more, got {count}")
    rng = np.random.default_rng(seed)
    for row in watched(rows, progress):
        yield row, draw_cuts(rows.shape[1], count, rng)


def _removed(length: int, cuts: Array) -> Array:
    """Where a visit is removed, bool ``[cuts, T, 1]``."""
    places = np.arange(length)
    return ((places >= 1) & (places < cuts[:, None]))[..., None]


def _propagated(model: Model, row: np.ndarray, plan: Plan, cuts: Array) -> tuple[Array, Array]:
    """Effects ``[visits, visits]`` and output changes ``[visits]``, the largest over the cuts.

    All streams that differ go through a layer together, the unchanged one first; each visit adds the streams that lack it.
    """
    removed = _removed(len(row), cuts)
    effects, x_NTD = np.full((len(plan), len(plan)), np.nan), model.hidden(model.enter(row))
    for v, layer in enumerate(plan):
        update, after = visit(model, row, x_NTD, layer)
        effects[:v, v] = _relative(update[0], update[1:], cuts)
        x_NTD = np.concatenate([after, np.where(removed, x_NTD[0], after[0])])
    return effects, _output_changes(model, row, x_NTD, cuts)


def _local(model: Model, row: np.ndarray, plan: Plan, cuts: Array) -> Array:
    """Local effects ``[visits, visits]``, the largest over the cuts."""
    resid, attn, mlp = traced(model, row, plan)
    updates, removed = attn + mlp, _removed(len(row), cuts)
    effects = np.full((len(plan), len(plan)), np.nan)
    for v, layer in enumerate(plan[1:], 1):
        without = resid[v] - removed * updates[:v, None]  # [s, cuts, T, D]
        streams = np.concatenate([resid[v][None], without.reshape(-1, *resid.shape[1:])])
        update, _ = visit(model, row, streams, layer)
        effects[:v, v] = _relative(update[0], update[1:], cuts)
    return effects


def _relative(update: Array, changed: Array, cuts: Array) -> Array:
    """Largest change from the cut on of ``changed [visits x cuts, T, D]`` over the norm of ``update [T, D]``: ``[visits]``."""
    size = np.maximum(np.linalg.norm(update, axis=-1), FLOOR)
    change = np.linalg.norm(changed - update, axis=-1) / size
    change = change.reshape(-1, len(cuts), len(size))
    return np.where(np.arange(len(size)) >= cuts[:, None], change, 0).max((1, 2))  # type: ignore[no-any-return]


def _output_changes(model: Model, row: np.ndarray, x_NTD: Array, cuts: Array) -> Array:
    """Largest L2 change of the softmax from the cut on, ``[visits]``; the streams are those after the last visit."""
    first = int(cuts.min())
    clean = _probabilities(model, row, x_NTD[:1], first)[0]
    changes = np.zeros(len(x_NTD) - 1)
    size = max(1, ROWS // (len(row) - first))
    for start in range(1, len(x_NTD), size):
        probabilities = _probabilities(model, row, x_NTD[start : start + size], first)
        change = np.linalg.norm(probabilities - clean, axis=-1)
        t = cuts[(np.arange(start, start + len(change)) - 1) % len(cuts)]
        changes[start - 1 : start - 1 + len(change)] = np.where(np.arange(first, len(row)) >= t[:, None], change, 0).max(1)
    return changes.reshape(-1, len(cuts)).max(1)  # type: ignore[no-any-return]


def _probabilities(model: Model, row: np.ndarray, x_NTD: Array, first: int) -> Array:
    """Next-token probabilities from position ``first`` on, ``[N, T - first, V]``."""
    logits = unembed(model, row, x_NTD, np.arange(first, len(row)))
    return np.exp(log_softmax(logits))
