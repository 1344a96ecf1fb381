"""How large the stream and what the sublayers add to it are, by visit, and whether that repeats with a period (paper, figures 3 and 14)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from loopkit.probes.common import Array, interval, order, prompts, traced, watched
from loopkit.probes.period import find_period
from loopkit.probes.result import Chart, Curve, Headline, Result
from loopkit.progress import Progress, quiet
from loopkit.session import Depth, Model

FLOOR = 1e-6  # of the norm that is divided by


@dataclass(frozen=True, eq=False)
class ResidualNorms(Result):
    """L2 norm of the stream after 0, 1, ... visits: ``means`` and ``medians`` over a prompt's positions, ``[examples, visits + 1]``."""

    probe: ClassVar[str] = "residual-norms"
    means: np.ndarray
    medians: np.ndarray

    @property
    def headline(self) -> Headline:
        """How much the norm grows from the embedding to the last visit."""
        mean, median = self.means.mean(0).tolist(), self.medians.mean(0).tolist()
        return {"last norm": mean[-1], "growth of the mean": mean[-1] / mean[0], "growth of the median": median[-1] / median[0]}

    @property
    def charts(self) -> tuple[Chart, ...]:
        """Mean and median by visit; a first position of giant norm moves the mean alone."""
        return (
            _curve("Norm of the residual stream, mean", "visits done", "norm", self.means),
            _curve("Norm of the residual stream, median", "visits done", "norm", self.medians),
        )


@dataclass(frozen=True, eq=False)
class Sublayers(Result):
    """Means over a prompt's positions, ``[examples, visits]``: ``attention`` |a| / |h|, ``mlp`` |m| / |h + a|, ``contribution``
    |a + m| / |h|, where h is the stream that enters the visit. Periods are of their means, 0 where there is none."""

    probe: ClassVar[str] = "sublayers"
    attention: np.ndarray
    mlp: np.ndarray
    contribution: np.ndarray
    attention_period: int
    mlp_period: int
    contribution_period: int

    @property
    def headline(self) -> Headline:
        """The periods in words."""
        found = {"attention": self.attention_period, "MLP": self.mlp_period, "contribution": self.contribution_period}
        return {name: f"cycle of {period}" if period else "no cycle" for name, period in found.items()}

    @property
    def charts(self) -> tuple[Chart, ...]:
        """Attention and MLP (figure 3), the whole contribution (figure 14)."""
        return (
            _curve("Attention output over the stream", "visit", "|a| / |h|", self.attention),
            _curve("MLP output over the stream it reads", "visit", "|m| / |h + a|", self.mlp),
            _curve("Relative contribution of the visit", "visit", "|a + m| / |h|", self.contribution),
        )


def residual_norms(model: Model, ids: np.ndarray, plan: Depth = None, *, progress: Progress = quiet) -> ResidualNorms:
    """Norm of the residual stream by visit (paper, section 4.1). ids ``[B, T]``."""
    visits = order(model, plan)
    norms = [np.linalg.norm(traced(model, row, visits)[0], axis=-1) for row in watched(prompts(ids), progress)]
    return ResidualNorms(model.text(visits), np.mean(norms, -1), np.median(norms, -1))


def sublayers(model: Model, ids: np.ndarray, plan: Depth = None, *, seed: int = 0, progress: Progress = quiet) -> Sublayers:
    """Norm of what attention and MLP add over that of the stream they read, and the relative contribution of the visit (paper,
    section 4.1 and appendix B.3), with their periods (see ``find_period``; ``seed`` is of its shuffles). ids ``[B, T]``."""
    visits = order(model, plan)
    found = np.array([_ratios(*traced(model, row, visits)) for row in watched(prompts(ids), progress)])
    attention, mlp, contribution = found.swapaxes(0, 1)
    periods = [find_period(each.mean(0), seed).length for each in (attention, mlp, contribution)]
    return Sublayers(model.text(visits), attention, mlp, contribution, *periods)


def _ratios(resid: Array, attn: Array, mlp: Array) -> Array:
    """The three ratios of one prompt, means over positions: ``[3, visits]``."""
    h = resid[:-1]
    pairs = ((attn, h), (mlp, h + attn), (attn + mlp, h))
    return np.array([(np.linalg.norm(a, axis=-1) / np.maximum(np.linalg.norm(b, axis=-1), FLOOR)).mean(-1) for a, b in pairs])


def _curve(title: str, x: str, y: str, values: Array) -> Curve:
    return Curve(title, x, y, values.mean(0), *interval(values))
