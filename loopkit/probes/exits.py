"""What the model would say if it stopped early: the stream after each visit through final norm and head, bare (logit lens) or after a
translator (tuned lens), against what it says at the end (paper, figure 2 B and C, appendix E)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from loopkit.data.tasks import Question
from loopkit.evaluation.choice import request
from loopkit.plan import Plan
from loopkit.probes.common import Array, interval, log_softmax, order, prompts, traced, unembed, watched
from loopkit.probes.result import Chart, Curve, Headline, Result
from loopkit.progress import Progress, quiet
from loopkit.session import Depth, Model

TOP = 5
DEPTH = "visits done"


class Translator(Protocol):
    """What makes the stream after some visits readable to the final norm and head."""

    def apply(self, visits: int, x: Array) -> Array:
        """The translated stream ``[..., D]``."""


class Bare:
    """The logit lens: no translation."""

    def apply(self, visits: int, x: Array) -> Array:
        """``x`` itself."""
        return x


@dataclass(frozen=True, eq=False)
class LogitLens(Result):
    """``kl [examples, visits + 1]``: KL(final || exit after so many visits), nats, mean over positions; ``overlap``: share of the final
    top 5 among the exit's top 5."""

    probe: ClassVar[str] = "logit-lens"
    kl: np.ndarray
    overlap: np.ndarray

    @property
    def headline(self) -> Headline:
        """Where the exit begins to say what the model says."""
        return {"visits until KL < 1 nat": _first(self.kl.mean(0) < 1), "visits until half the top 5": _first(self.overlap.mean(0) >= 0.5)}

    @property
    def charts(self) -> tuple[Chart, ...]:
        """Both by depth."""
        return (
            curve("Logit lens: KL(final || exit)", "nats", self.kl),
            curve("Logit lens: top-5 overlap with the final top 5", "share", self.overlap),
        )


@dataclass(frozen=True, eq=False)
class Top5Overlap(Result):
    """``overlap [examples, visits + 1]``: share of the final top 5 already in the top 5 after so many visits, mean over positions."""

    probe: ClassVar[str] = "top5-overlap"
    overlap: np.ndarray

    @property
    def headline(self) -> Headline:
        """Where half of the final top 5 is there, and the mean over depth."""
        mean = self.overlap.mean(0)
        return {"visits until half the top 5": _first(mean >= 0.5), "mean over depth": float(mean[:-1].mean())}

    @property
    def charts(self) -> tuple[Chart, ...]:
        """The paper's figure 2 B."""
        return (curve("Top-5 overlap of the early exit with the final layer", "share", self.overlap),)


def logit_lens(model: Model, ids: np.ndarray, plan: Depth = None, *, progress: Progress = quiet) -> LogitLens:
    """KL and top-5 overlap between the bare exit after each visit and the final distribution. ids ``[B, T]``."""
    visits = order(model, plan)
    found = np.array([exits(model, row, visits, Bare()) for row in watched(prompts(ids), progress)])
    return LogitLens(model.text(visits), found[:, 0], found[:, 1])


def top5_overlap(
    model: Model, ids: np.ndarray, plan: Depth = None, *, translator: Translator | None = None, progress: Progress = quiet
) -> Top5Overlap:
    """Share of the final top 5 tokens that are in the exit's top 5, by visit (paper, figure 2 B). ids ``[B, T]``; the exit is bare
    unless a ``translator`` such as a trained Lens is given."""
    visits = order(model, plan)
    found = [exits(model, row, visits, translator or Bare())[1] for row in watched(prompts(ids), progress)]
    return Top5Overlap(model.text(visits), np.array(found))


def exits(model: Model, row: np.ndarray, plan: Plan, translator: Translator) -> tuple[Array, Array]:
    """KL(final || exit) in nats and top-5 overlap of one prompt after 0, 1, ... visits, means over positions: ``[visits + 1]`` each."""
    resid, places = traced(model, row, plan)[0], np.arange(len(row))
    final = log_softmax(unembed(model, row, resid[-1:], places)[0])
    probabilities, top = np.exp(final), _top(final)
    kl, overlap = np.zeros(len(resid)), np.ones(len(resid))
    for done in range(len(plan)):
        early = log_softmax(unembed(model, row, translator.apply(done, resid[done])[None], places)[0])
        kl[done] = (probabilities * (final - early)).sum(-1).mean()
        overlap[done] = _among_top(early, top).mean()
    return kl, overlap


def exit_answers(model: Model, questions: Sequence[Question], plan: Plan, translator: Translator) -> Array:
    """Whether each question is answered right by the exit after 0, 1, ... visits, bool ``[questions, visits + 1]``."""
    right = np.zeros((len(questions), len(plan) + 1), bool)
    for number, question in enumerate(questions):
        asked = request(model, question)
        scores = np.empty((len(asked.options), len(plan) + 1))
        for head in {option[:-1] for option in asked.options}:  # options of one token share one pass
            mine = [i for i, option in enumerate(asked.options) if option[:-1] == head]
            targets = np.array([asked.options[i] for i in mine])
            scores[mine] = _likelihoods(model, np.array([*asked.prompt, *head]), targets, plan, translator)
        right[number] = scores.argmax(0) == question.answer
    return right


def curve(title: str, y: str, values: Array) -> Curve:
    """Means over examples by depth, with their interval."""
    return Curve(title, DEPTH, y, values.mean(0), *interval(values))


def _likelihoods(model: Model, row: np.ndarray, targets: Array, plan: Plan, translator: Translator) -> Array:
    """Log-likelihood of continuations ``targets [N, n]`` of a row that holds all but their last token, after 0, 1, ... visits, nats:
    ``[N, visits + 1]``."""
    resid, places = traced(model, row, plan)[0], np.arange(len(row) - targets.shape[1], len(row))
    found = np.empty((len(targets), len(resid)))
    for done, x in enumerate(resid):
        translated = translator.apply(done, x) if done < len(plan) else x
        logs = log_softmax(unembed(model, row, translated[None], places)[0])
        found[:, done] = np.take_along_axis(logs, targets.T, 1).sum(0)
    return found


def _top(logs: Array) -> Array:
    """The likeliest tokens of each position, in no order: ``[T, 5]``."""
    return np.argpartition(-logs, TOP - 1, axis=-1)[:, :TOP]


def _among_top(logs: Array, tokens: Array) -> Array:
    """Which of ``tokens [T, n]`` are among the five likeliest of their position: fewer than five are likelier. Bool ``[T, n]``."""
    places = np.arange(len(logs))
    return np.array([(logs > logs[places, token][:, None]).sum(-1) < TOP for token in tokens.T]).T


def _first(holds: Array) -> float:
    """The first depth at which something holds."""
    return float(np.argmax(holds)) if holds.any() else float(len(holds))
