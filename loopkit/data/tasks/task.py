"""What every generated task is: a table of text pieces and a pure function from random words to piece numbers.

The same instances serve training and evaluation. Instances are drawn as arrays, many at a time, and become text or token ids
only at the end. Every 16th of all instances, by a hash of what it says, is kept for evaluation and never trained on.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from loopkit.data.counter import Bits, Ints, bits, key, mix, subkeys
from loopkit.errors import LoopkitError

Split = Literal["train", "evaluation", "examples"]
RESERVED = 16  # one instance in so many is for evaluation (and the worked examples before its questions)
ANSWER = " "  # between a prompt and its answer
JOIN = "\n\n"  # between one question and the next
_ATTEMPTS = 2000
_EXAMPLES = 1 << 16  # numbers set aside for the worked examples of each question


@dataclass(frozen=True)
class Question:
    """A multiple-choice question: the options continue the prompt after a space, ``answer`` is the right one's index."""

    prompt: str
    options: tuple[str, ...]
    answer: int

    def whole(self, option: int) -> str:
        """The prompt with one of its options."""
        return self.prompt + ANSWER + self.options[option]

    @property
    def text(self) -> str:
        """The prompt with its right answer."""
        return self.whole(self.answer)


@dataclass(frozen=True)
class Instances:
    """``n`` instances as numbers of the task's pieces.

    prompt ``[n, length]``, options ``[n, options, width]``, answer ``[n]``; ``valid`` (``[n]``) marks those that keep the
    task's promises, the others are drawn again.
    """

    prompt: Ints
    options: Ints
    answer: Ints
    valid: NDArray[np.bool_] | None = None

    @property
    def answers(self) -> Ints:
        """The pieces of the right options: ``[n, width]``."""
        return self.options[np.arange(len(self.answer)), self.answer]

    def put(self, where: Ints, other: "Instances", take: Ints) -> None:
        """Write the taken instances of another draw over those at ``where``."""
        for mine, theirs in ((self.prompt, other.prompt), (self.options, other.options), (self.answer, other.answer)):
            mine[where] = theirs[take]


@dataclass(frozen=True)
class Task:
    """A named generator: ``make`` turns ``draws`` random words an instance (uint64 ``[n, draws]``) into Instances.

    Each row of what it makes depends on that row of random words only. Two pieces side by side must not run together into
    one word, so that word-level ids of a text are those of its pieces.
    """

    name: str
    pieces: tuple[str, ...]
    draws: int
    make: Callable[[Bits], Instances]

    @cached_property
    def chance(self) -> float:
        """Accuracy of guessing: one over the number of options."""
        return float(1 / draw(self, "train", 0, np.arange(1)).options.shape[1])

    @cached_property
    def _hashes(self) -> Bits:
        return np.array([key(piece) for piece in self.pieces])

    def reserved(self, prompt: Ints) -> NDArray[np.bool_]:
        """Which prompts are for evaluation: a hash of their text, so the same whichever task or seed makes them."""
        odd = mix(np.arange(prompt.shape[1], dtype=np.uint64)) | np.uint64(1)
        hashes: Bits = mix((self._hashes[prompt] * odd).sum(axis=1))
        low: Ints = (hashes % np.uint64(RESERVED)).astype(np.int64)
        return np.equal(low, 0)


def draw(task: Task, split: Split, seed: int, numbers: Ints) -> Instances:
    """The instances with these numbers: each a pure function of (task, split, seed, number).

    Raises LoopkitError where the task has too few different instances to fill the split.
    """
    drawn, fits = _attempt(task, split, seed, numbers, 0, 1)
    pending, attempt, more = np.flatnonzero(~fits), 1, 4 if split == "train" else RESERVED
    while len(pending) and attempt < _ATTEMPTS:
        new, fits = _attempt(task, split, seed, numbers[pending], attempt, more)
        first = fits.reshape(-1, more).argmax(axis=1) + np.arange(len(pending)) * more
        drawn.put(pending[fits[first]], new, first[fits[first]])
        pending, attempt = pending[~fits[first]], attempt + more
    if not len(pending):
        return drawn
    raise LoopkitError(f"{task.name} has too few different instances to hold some out for evaluation; give it more words")


def _attempt(task: Task, split: Split, seed: int, numbers: Ints, first: int, count: int) -> tuple[Instances, NDArray[np.bool_]]:
    """``count`` tries at each number, side by side, from try ``first`` on; and which of them belong to the split."""
    streams = subkeys(key(task.name, split, seed), np.arange(first, first + count))
    words = bits(np.tile(streams, len(numbers))[:, None], np.repeat(numbers, count), task.draws)
    new = task.make(words)
    fits = task.reserved(new.prompt) != (split == "train")
    return new, fits if new.valid is None else fits & new.valid


def questions(task: Task, split: Split, seed: int, count: int, start: int = 0) -> list[Question]:
    """Questions number ``start`` to ``start + count - 1`` of a split."""
    return list(_as_questions(task, draw(task, split, seed, np.arange(start, start + count))))


def few_shot(task: Task, seed: int, count: int, shots: int = 5, start: int = 0) -> list[Question]:
    """Evaluation questions, each after ``shots`` worked examples (paper, section 3.2: five).

    Question i asks the same at any number of shots, and its first examples stay first when there are more. None is the question itself.
    """
    asked = questions(task, "evaluation", seed, count, start)
    numbers = np.arange(start, start + count)[:, None] * _EXAMPLES + np.arange(shots)
    worked = list(_as_questions(task, draw(task, "examples", seed, numbers.reshape(-1)))) if shots else []
    found = []
    for i, question in enumerate(asked):
        head = [each.text for each in _others(task, seed, start + i, worked[i * shots : (i + 1) * shots], question)]
        found.append(Question(JOIN.join([*head, question.prompt]), question.options, question.answer))
    return found


def _others(task: Task, seed: int, number: int, drawn: Sequence[Question], asked: Question) -> list[Question]:
    """The examples drawn, later ones in place of those that ask the same. Raises LoopkitError where the task has too few."""
    found = [each for each in drawn if each.prompt != asked.prompt]
    for place in range(len(drawn), len(drawn) + _ATTEMPTS):
        if len(found) == len(drawn):
            return found
        more = _as_questions(task, draw(task, "examples", seed, np.array([number * _EXAMPLES + place])))
        found += [each for each in more if each.prompt != asked.prompt]
    raise LoopkitError(
        f"{task.name} has too few different instances for {len(drawn)} worked examples; give it more words, or lower --shots"
    )


def training_text(task: Task, seed: int, start: int, count: int) -> list[str]:
    """Training questions number ``start`` onwards with their answers, as text."""
    drawn = draw(task, "train", seed, np.arange(start, start + count))
    prompts, answers = texts(task, drawn.prompt), texts(task, drawn.answers)
    return [prompt + ANSWER + answer for prompt, answer in zip(prompts, answers, strict=True)]


def _as_questions(task: Task, drawn: Instances) -> Iterator[Question]:
    n, width = drawn.options.shape[:2]
    options = texts(task, drawn.options.reshape(n * width, -1))
    for i, prompt in enumerate(texts(task, drawn.prompt)):
        yield Question(prompt, tuple(options[i * width : (i + 1) * width]), int(drawn.answer[i]))


def texts(task: Task, rows: Ints) -> list[str]:
    """The text of each row of piece numbers ``[n, columns]``."""
    table = np.array(task.pieces, dtype=object)
    return ["".join(row) for row in table[rows].tolist()]
