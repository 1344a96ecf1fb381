"""How well the model does when its plan is edited: visits swapped, removed, repeated (paper, figures 5, 6, 11 and 12).

What the edited plans share at their beginning runs once for all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from loopkit import plan as plans
from loopkit.data.tasks import Question
from loopkit.errors import UsageError
from loopkit.evaluation.choice import answer
from loopkit.evaluation.statistics import wilson
from loopkit.plan import Plan
from loopkit.probes.common import Array, interval, order, prompts, watched
from loopkit.probes.result import Chart, Curve, Headline, Result
from loopkit.progress import Progress, quiet
from loopkit.session import Depth, Model


@dataclass(frozen=True, eq=False)
class Edits(Result):
    """Blocks of ``size`` visits edited at every position ``[positions]``.

    ``nll [examples, positions]`` and ``base_nll [examples]``: mean negative log-likelihood of the prompts, nats a token.
    ``right [questions, positions]`` and ``base_right [questions]``: whether questions are answered right; empty without questions.
    """

    size: int
    nll: np.ndarray
    base_nll: np.ndarray
    right: np.ndarray
    base_right: np.ndarray

    @property
    def headline(self) -> Headline:
        """The model as it is, the median over edits, and the worst or best of them."""
        nll = self.nll.mean(0)
        found: Headline = {"NLL": float(self.base_nll.mean()), "NLL edited": float(np.median(nll)), "NLL worst": float(nll.max())}
        if self.right.size:
            share = self.right.mean(0)
            found |= {"accuracy": float(self.base_right.mean()), "accuracy edited": float(np.median(share))}
            found |= {"accuracy best": f"{share.max():.3g} at {int(share.argmax())}"}
        return found

    def curves(self, what: str) -> tuple[Chart, ...]:
        """NLL's change, and accuracy where there were questions, by the position of the edit."""
        change = self.nll - self.base_nll[:, None]
        low, high = interval(change)
        x = "first visit of the block"
        found: list[Chart] = [Curve(f"{what}: change of NLL", x, "nats a token", change.mean(0), low, high)]
        if self.right.size:
            limits = np.array([wilson(int(each.sum()), len(each)) for each in self.right.T])
            found.append(Curve(f"{what}: accuracy", x, "share right", self.right.mean(0), limits[:, 0], limits[:, 1]))
        return tuple(found)


@dataclass(frozen=True, eq=False)
class Swap(Edits):
    """The block of ``size`` visits at each position exchanged with the next block."""

    probe: ClassVar[str] = "swap"

    @property
    def charts(self) -> tuple[Chart, ...]:
        """The paper's figures 5 and 11."""
        return self.curves(f"Swapping blocks of {self.size}" if self.size > 1 else "Swapping neighbours")


@dataclass(frozen=True, eq=False)
class Skip(Edits):
    """The block of ``size`` visits at each position removed."""

    probe: ClassVar[str] = "skip"

    @property
    def charts(self) -> tuple[Chart, ...]:
        """By position."""
        return self.curves(f"Removing blocks of {self.size}" if self.size > 1 else "Removing a visit")


@dataclass(frozen=True, eq=False)
class Repeat(Edits):
    """The block of ``size`` visits at each position run ``times`` times in a row."""

    probe: ClassVar[str] = "repeat"
    times: int

    @property
    def charts(self) -> tuple[Chart, ...]:
        """The paper's figures 6 and 12."""
        return self.curves(f"Running blocks of {self.size} {self.times} times")


def swap(
    model: Model,
    ids: np.ndarray,
    plan: Depth = None,
    *,
    questions: Sequence[Question] = (),
    size: int = 1,
    progress: Progress = quiet,
) -> Swap:
    """Likelihood (and accuracy on ``questions``) after each swap of neighbouring blocks of ``size`` visits (paper, appendix B.1)."""
    visits = order(model, plan)
    edited = [plans.swap(visits, start, size) for start in _starts(visits, size, 2 * size)]
    return Swap(model.text(visits), size, *_scored(model, ids, [visits, *edited], questions, progress))


def skip(
    model: Model,
    ids: np.ndarray,
    plan: Depth = None,
    *,
    questions: Sequence[Question] = (),
    size: int = 1,
    progress: Progress = quiet,
) -> Skip:
    """Likelihood (and accuracy on ``questions``) after removing each block of ``size`` visits."""
    visits = order(model, plan)
    edited = [plans.skip(visits, start, start + size) for start in _starts(visits, size, size + (size == len(visits)))]
    return Skip(model.text(visits), size, *_scored(model, ids, [visits, *edited], questions, progress))


def repeat(
    model: Model,
    ids: np.ndarray,
    plan: Depth = None,
    *,
    questions: Sequence[Question] = (),
    size: int = 4,
    times: int = 2,
    progress: Progress = quiet,
) -> Repeat:
    """Likelihood (and accuracy on ``questions``) when each block of ``size`` visits runs ``times`` times (paper, section 4.2, whose
    blocks are of four)."""
    visits = order(model, plan)
    edited = [plans.repeat(visits, start, start + size, times) for start in _starts(visits, size, size)]
    return Repeat(model.text(visits), size, *_scored(model, ids, [visits, *edited], questions, progress), times)


def _starts(visits: Plan, size: int, room: int) -> range:
    """Where blocks may begin that need ``room`` visits. Raises UsageError where there is no such place."""
    if size < 1 or len(visits) < room:
        raise UsageError(f"blocks of {size} do not fit a plan of {len(visits)} visits for this; choose a smaller size, e.g. --set size=1")
    return range(len(visits) - room + 1)


def _scored(
    model: Model, ids: np.ndarray, edited: Sequence[Plan], questions: Sequence[Question], progress: Progress
) -> tuple[Array, Array, Array, Array]:
    """NLL and right answers of all plans but the first, and of the first: ``nll, base_nll, right, base_right``."""
    nll = np.array([_nll(model, row, edited) for row in watched(prompts(ids, 2), progress)])
    right = np.zeros((len(questions), len(edited)), bool)
    for batch in answer(model, questions, edited):
        right[list(batch.questions)] = batch.right.T
    return nll[:, 1:], nll[:, 0], right[:, 1:], right[:, 0]


def _nll(model: Model, row: np.ndarray, edited: Sequence[Plan]) -> Array:
    """Mean NLL of one prompt under every plan, nats a token: ``[plans]``."""
    found, places = np.empty(len(edited)), np.arange(len(row) - 1)
    for index, stream in model.advance_all(model.enter(row), edited):
        found[index] = -model.backend.log_probs(model.weights, model.spec, stream, places, row[1:])[0].mean()
    return found
