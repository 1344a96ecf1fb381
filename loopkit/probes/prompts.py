"""What probes run on: prompts of one length from a source of text, and questions where the source has them."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from loopkit.data.sources import Primitives, Text, parse_source
from loopkit.data.tasks import Question, few_shot, find, training_text
from loopkit.data.tasks.task import JOIN
from loopkit.errors import UsageError
from loopkit.session import Model

LENGTH = 128
POOL = 8  # documents looked at for each that is taken
BLOCK = 16  # questions that are written at a time


@dataclass(frozen=True, eq=False)
class Prompts:
    """Token ids ``[B, T]``, and multiple-choice questions (none from plain text)."""

    ids: np.ndarray
    questions: tuple[Question, ...] = ()


def read_prompts(model: Model, source: str, examples: int = 8, length: int | None = None, shots: int = 5, seed: int = 0) -> Prompts:
    """``examples`` prompts of ``length`` tokens (128, or all that the model has room for), and as many questions of a generated task
    with ``shots`` worked examples each.

    Text is every second document of the source; the others are for training lenses. Raises UsageError where there is too little.
    """
    length = length or min(LENGTH, model.spec.max_position_embeddings)
    parsed = parse_source(source)
    parsed.check()
    if not isinstance(parsed, Primitives):
        return Prompts(_take(model, _documents(parsed, 0), examples, length, seed, source))
    each = -(-examples // len(parsed.names))
    questions = [question for name in parsed.names for question in few_shot(find(name), seed, each, shots)]
    for question in questions:
        model.tokenizer.encode_known(question.text)
    return Prompts(_take(model, _worked(parsed, seed), examples, length, seed, source), tuple(questions[:examples]))


def training_ids(model: Model, source: str, examples: int, length: int | None = None, seed: int = 0) -> np.ndarray:
    """Ids ``[examples, T]`` of text that ``read_prompts`` never gives: the other half of the documents, or training questions."""
    length = length or min(LENGTH, model.spec.max_position_embeddings)
    parsed = parse_source(source)
    parsed.check()
    texts = _worked(parsed, seed + 1) if isinstance(parsed, Primitives) else _documents(parsed, 1)
    return _take(model, texts, examples, length, seed, source)


def _documents(source: Text, half: int) -> Iterator[str]:
    return islice(source.documents(), half, None, 2)


def _worked(source: Primitives, seed: int) -> Iterator[str]:
    """Endless texts of worked questions, one task each in turn, long enough for any prompt."""
    number = 0
    while True:
        for name in source.names:
            yield JOIN.join(training_text(find(name), seed, number * BLOCK, BLOCK))
        number += 1


def _take(model: Model, texts: Iterator[str], count: int, length: int, seed: int, source: str) -> np.ndarray:
    """The first tokens of ``count`` texts that are long enough, out of the first few times as many."""
    if count < 1:
        raise UsageError(f"{count} texts of {source} are too few; ask for 1 or more")
    pool: list[list[int]] = []
    for text in texts:
        ids = model.tokenizer.encode(text[: 16 * length])
        if len(ids) >= length:
            pool.append(ids[:length])
        if len(pool) >= count * POOL:
            break
    if len(pool) < count:
        raise UsageError(f"{source} has {len(pool)} texts of {length} tokens, {count} are wanted; lower --examples or --length")
    return np.array(pool)[np.sort(np.random.default_rng(seed).permutation(len(pool))[:count])]
