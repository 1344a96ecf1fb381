"""How the stream moves over the repeats of a looped block: does it converge, cycle or drift, and does the answer settle?"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from loopkit import plan as plans
from loopkit.errors import UsageError
from loopkit.plan import Plan
from loopkit.probes.common import Array, interval, log_softmax, order, prompts, watched
from loopkit.probes.result import Chart, Curve, Headline, Result
from loopkit.progress import Progress, quiet
from loopkit.run import Run, Stream
from loopkit.session import Depth, Model

FLOOR = 1e-12
SETTLED = 0.5  # a step this much shorter than the first, or a return this much nearer than a step, counts
LEAST = 2  # repeats to compare


@dataclass(frozen=True, eq=False)
class FixedPoint(Result):
    """The block's visits ``start`` to ``stop - 1`` ran ``times`` times. Means over positions, ``[examples, n]`` each:

    ``steps [times]``: |x_r - x_(r-1)| / |x_(r-1)|; ``cosines [times - 1]``: between consecutive steps; ``returns [times - 1]``:
    |x_r - x_(r-2)| / |x_(r-2)|; ``kl [times - 1]``: KL(exit after r + 1 || exit after r repeats), nats, the rest of the plan run after
    each; ``flips [times - 1]``: share of positions whose likeliest next token changes.
    """

    probe: ClassVar[str] = "fixed-point"
    start: int
    stop: int
    times: int
    steps: np.ndarray
    cosines: np.ndarray
    returns: np.ndarray
    kl: np.ndarray
    flips: np.ndarray

    @property
    def headline(self) -> Headline:
        """The verdict and the last step."""
        last = {"last step": float(self.steps[:, -1].mean()), "last KL": float(self.kl[:, -1].mean())}
        return {"moves": verdict(self.steps.mean(0), self.returns.mean(0)), **last, "last flips": float(self.flips[:, -1].mean())}

    @property
    def charts(self) -> tuple[Chart, ...]:
        """Steps, their directions, what the exits say."""
        x = "repeat, from 0"
        return (
            Curve("Relative step of the stream over a repeat", x, "|step| / |stream|", self.steps.mean(0), *interval(self.steps)),
            Curve("Cosine between consecutive steps", x, "cosine", self.cosines.mean(0), *interval(self.cosines)),
            Curve("KL between the exits of consecutive repeats", x, "nats", self.kl.mean(0), *interval(self.kl)),
            Curve("Answers that change from repeat to repeat", x, "share", self.flips.mean(0), *interval(self.flips)),
        )


def fixed_point(model: Model, ids: np.ndarray, plan: Depth = None, *, progress: Progress = quiet) -> FixedPoint:
    """How the stream and the exits move over the repeats of the block that the plan runs most often in a row.

    ids ``[B, T]``. Raises UsageError where the plan repeats nothing.
    """
    visits = order(model, plan)
    start, size, times = looped_block(visits)
    found = [_moves(model, row, visits, start, size, times) for row in watched(prompts(ids), progress)]
    return FixedPoint(model.text(visits), start, start + size, times, *map(np.array, zip(*found, strict=True)))


def looped_block(visits: Plan) -> tuple[int, int, int]:
    """First visit, length and count of the block that runs most often in a row, of several the longest. Raises UsageError where none
    runs twice."""
    spans = ((start, size) for size in range(len(visits) // 2, 0, -1) for start in range(len(visits) - 2 * size + 1))
    found = [(start, size, plans.count(visits, start, visits[start : start + size])) for start, size in spans]
    best = max(found, key=lambda each: each[2], default=(0, 0, 0))
    if best[2] < LEAST:
        raise UsageError("fixed-point needs a plan that repeats a block; probe a looped checkpoint, or give one, e.g. --plan 8:12x8")
    return best


def verdict(steps: Array, returns: Array) -> str:
    """In a word, from the mean steps ``[times]`` and returns ``[times - 1]``: ``converges`` where the last step is at most half the
    first and not longer than the one before, ``cycles`` where the stream comes back to where it was two repeats ago, else ``drifts``."""
    if steps[-1] <= SETTLED * steps[0] and steps[-1] <= steps[-2] * 1.01:
        return "converges"
    return "cycles" if returns[-1] <= SETTLED * steps[-1] else "drifts"


def _moves(model: Model, row: np.ndarray, visits: Plan, start: int, size: int, times: int) -> tuple[Array, Array, Array, Array, Array]:
    states, kl, flips = [], [], []
    before: Array | None = None
    for number, stream in enumerate(_states(model, row, visits, start, size, times)):
        states.append(model.hidden(stream)[0])
        if number == 0:
            continue
        logs = _exit(model, stream, visits[start + size * times :], len(row))
        if before is not None:
            kl.append(float((np.exp(logs) * (logs - before)).sum(-1).mean()))
            flips.append(float((logs.argmax(-1) != before.argmax(-1)).mean()))
        before = logs
    return (*_geometry(np.array(states)), np.array(kl), np.array(flips))


def _states(model: Model, row: np.ndarray, visits: Plan, start: int, size: int, times: int) -> Iterator[Stream]:
    """The stream before the block and after each of its repeats."""
    stream, _ = model.advance(model.enter(row), Run(visits[:start]))
    yield stream
    for _ in range(times):
        stream, _ = model.advance(stream, Run(visits[start : start + size]))
        yield stream


def _exit(model: Model, stream: Stream, rest: Plan, length: int) -> Array:
    """Log-probabilities ``[T, V]`` when the rest of the plan follows."""
    stream, _ = model.advance(stream, Run(rest))
    return log_softmax(model.unembed(stream, np.arange(length)))


def _geometry(states: Array) -> tuple[Array, Array, Array]:
    """Relative steps, cosines of consecutive steps and relative returns of ``states [times + 1, T, D]``, means over positions."""
    moves, norms = np.diff(states, axis=0), np.maximum(np.linalg.norm(states, axis=-1), FLOOR)
    sizes = np.linalg.norm(moves, axis=-1)
    cosines = (moves[1:] * moves[:-1]).sum(-1) / np.maximum(sizes[1:] * sizes[:-1], FLOOR)
    returns = np.linalg.norm(states[2:] - states[:-2], axis=-1) / norms[:-2]
    return (sizes / norms[:-1]).mean(-1), cosines.mean(-1), returns.mean(-1)
