"""Multiple choice by likelihood: each option is scored as the continuation of its prompt, the likeliest is the answer."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loopkit.data.tasks import Question, few_shot, find
from loopkit.errors import UsageError
from loopkit.plan import Plan, format_plan
from loopkit.session import Model

BATCH_TOKENS = 4096


@dataclass(frozen=True)
class Accuracy:
    """Share of questions answered right, with its 95% interval (Wilson 1927) and that of guessing."""

    task: str
    plan: str
    correct: int
    questions: int
    chance: float

    @property
    def share(self) -> float:
        """Accuracy, 0 to 1."""
        return self.correct / self.questions

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of the accuracy."""
        return wilson(self.correct, self.questions)


def accuracy(model: Model, task: str, plan: Plan | str | None = None, count: int = 100, shots: int = 0, seed: int = 0) -> Accuracy:
    """Accuracy on ``count`` held-out questions of a task, each after ``shots`` worked examples.

    The same seed asks the same questions of every model and plan. Raises UsageError where there is no such task, or a prompt does
    not fit the model.
    """
    if count < 1:
        raise UsageError(f"an accuracy needs at least one question, got {count}")
    resolved, found = model.resolve(plan), find(task)
    answers = choose(model, few_shot(found, seed, count, shots), resolved)
    return Accuracy(task, format_plan(resolved, model.plan), int(answers.sum()), count, found.chance)


def choose(model: Model, questions: Sequence[Question], plan: Plan | str | None = None) -> np.ndarray:
    """Whether each question is answered right, bool ``[questions]``."""
    rows = [(number, option) for number, question in enumerate(questions) for option in range(len(question.options))]
    pairs = [(questions[number].prompt, " " + questions[number].options[option]) for number, option in rows]
    scores = loglikelihoods(model, pairs, plan)
    best: dict[int, tuple[float, int]] = {}
    for (number, option), score in zip(rows, scores, strict=True):
        best[number] = max(best.get(number, (-math.inf, -1)), (float(score), option), key=lambda pair: pair[0])
    return np.array([best[number][1] == question.answer for number, question in enumerate(questions)])


def loglikelihoods(model: Model, pairs: Sequence[tuple[str, str]], plan: Plan | str | None = None) -> np.ndarray:
    """Summed log-likelihood in nats of each continuation after its prompt, float64 ``[pairs]``."""
    encoded = [_encode(model, *pair) for pair in pairs]
    scores = np.empty(len(pairs))
    for batch in _batches([len(ids) for ids, _ in encoded]):
        nll = model.nll(np.array([encoded[i][0] for i in batch]), plan).astype(np.float64)
        for i, row in zip(batch, nll, strict=True):
            scores[i] = -row[encoded[i][1] - 1 :].sum()
    return scores


def wilson(correct: int, total: int, z: float = 1.959964) -> tuple[float, float]:
    """The interval of a share that a normal test at ``z`` does not reject (Wilson 1927)."""
    share, spread = correct / total, z * z / total
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt(spread * (share * (1 - share) + spread / 4)) / (1 + spread)
    return middle - half if correct else 0.0, middle + half if correct < total else 1.0


def _encode(model: Model, prompt: str, continuation: str) -> tuple[list[int], int]:
    """Ids of both together, and where the continuation begins; a token across the border counts as continuation."""
    whole, start = model.tokenizer.encode(prompt + continuation), model.tokenizer.encode(prompt)
    same = next((i for i, (a, b) in enumerate(zip(whole, start, strict=False)) if a != b), min(len(whole), len(start)))
    if not 0 < same < len(whole):
        raise UsageError(f"{continuation!r} after {prompt[-20:]!r} has no tokens of its own to score")
    return whole, same


def _batches(lengths: Sequence[int]) -> list[list[int]]:
    """Indices in batches of one length, each of at most ``BATCH_TOKENS`` tokens."""
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        last = batches[-1] if batches else []
        if last and lengths[last[0]] == lengths[i] and (len(last) + 1) * lengths[i] <= BATCH_TOKENS:
            last.append(i)
        else:
            batches.append([i])
    return batches
