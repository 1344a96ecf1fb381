"""Multiple choice by likelihood: each option is scored as the continuation of its prompt, the likeliest is the answer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from loopkit.data.tasks import Question, few_shot, find
from loopkit.errors import UsageError
from loopkit.evaluation.statistics import wilson
from loopkit.inference.scoring import MEMORY, Request
from loopkit.plan import Plan
from loopkit.progress import Progress, quiet
from loopkit.session import Model


@dataclass(frozen=True)
class Accuracy:
    """Share of questions answered right, and that of guessing."""

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
        """The 95% interval of the accuracy (Wilson 1927)."""
        return wilson(self.correct, self.questions)


@dataclass(frozen=True)
class Answers:
    """Some questions under every plan: ``right`` (bool ``[plans, questions]``) says whether the likeliest option is the right one,
    ``probability`` (float64, the same shape) is the right option's among the options."""

    questions: tuple[int, ...]
    right: np.ndarray
    probability: np.ndarray


def accuracies(
    model: Model,
    task: str,
    plans: Sequence[Plan | str | None] = (None,),
    count: int = 100,
    shots: int = 0,
    seed: int = 0,
    progress: Progress = quiet,
) -> list[Accuracy]:
    """Accuracy of each plan on the same ``count`` held-out questions of a task, each after ``shots`` worked examples.

    The same seed asks the same questions of every model. ``progress`` is told how many have been asked. Raises UsageError where there
    is no such task, or a prompt does not fit the model.
    """
    if count < 1:
        raise UsageError(f"an accuracy needs at least one question, got {count}")
    found = find(task)
    correct, done = np.zeros(len(plans), np.int64), 0
    progress(done, count)
    for each in answer(model, few_shot(found, seed, count, shots), plans):
        correct, done = correct + each.right.sum(1), done + len(each.questions)
        progress(done, count)
    return [Accuracy(task, model.text(plan), int(n), count, found.chance) for plan, n in zip(plans, correct, strict=True)]


def answer(
    model: Model, questions: Sequence[Question], plans: Sequence[Plan | str | None] = (None,), memory: int = MEMORY
) -> Iterator[Answers]:
    """Answers to all questions under every plan, a batch of questions at a time."""
    for batch in model.score([request(model, question) for question in questions], plans, memory):
        numbers = tuple(score.request for score in batch)
        wanted = [questions[number].answer for number in numbers]
        logs = [score.log_likelihood for score in batch]
        best = np.array([each.argmax(1) == right for each, right in zip(logs, wanted, strict=True)])
        shares = [np.exp(each - np.logaddexp.reduce(each, 1)[:, None])[:, right] for each, right in zip(logs, wanted, strict=True)]
        yield Answers(numbers, best.T, np.array(shares).T)


def request(model: Model, question: Question) -> Request:
    """Token ids of a question: what its options share at the beginning, and the rest of each.

    A token that reaches over the end of the prompt belongs to the option, so options are compared as whole texts.
    """
    start = len(model.tokenizer.encode(question.prompt))
    texts = [tuple(model.tokenizer.encode_known(question.whole(option))) for option in range(len(question.options))]
    shared = min(start, *(len(text) for text in texts))
    while any(text[:shared] != texts[0][:shared] for text in texts):
        shared -= 1
    if not shared or min(map(len, texts)) == shared:
        raise UsageError(f"an option after {question.prompt[-20:]!r} has no tokens of its own to score")
    return Request(texts[0][:shared], tuple(text[shared:] for text in texts))
