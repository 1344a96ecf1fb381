"""What probes run on: prompts of one length from a source of text, and questions where the source has them."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, count, islice

import numpy as np

from loopkit.data.sources import Primitives, Text, parse_source
from loopkit.data.tasks import Question, few_shot, find, training_text
from loopkit.data.tasks.task import JOIN
from loopkit.errors import UsageError
from loopkit.session import Model

LENGTH = 128
POOL = 8  # documents looked at for each that is taken
BLOCK = 16  # questions that are written at a time
APART = 1 << 20  # blocks between a text's first questions and those that make it longer
LONGEST = 16  # characters a token, at most
SHOTS = 5  # worked examples before a question, where they fit
LENS = 1 << 32  # from the seed of prompts to that of a lens's training


@dataclass(frozen=True, eq=False)
class Prompts:
    """Token ids ``[B, T]``, and multiple-choice questions (none from plain text)."""

    ids: np.ndarray
    questions: tuple[Question, ...] = ()


def read_prompts(
    model: Model,
    source: str,
    examples: int = 8,
    length: int | None = None,
    shots: int | None = None,
    seed: int = 0,
    asks: bool = True,
) -> Prompts:
    """``examples`` prompts of ``length`` tokens (128, or all that the model has room for), and as many questions of a generated task
    with ``shots`` worked examples each (5, or as many as fit the model), unless ``asks`` is False.

    Text is every second document of the source; the others are for training lenses. Raises UsageError where there is too little, or a
    question does not fit.
    """
    length = length or min(LENGTH, model.spec.max_position_embeddings)
    parsed = parse_source(source)
    parsed.check()
    if not isinstance(parsed, Primitives):
        return Prompts(_take(model, _documents(parsed, 0), examples, length, seed, source))
    questions = _fitting(model, parsed, examples, shots, seed) if asks else ()
    return Prompts(_take(model, _worked(parsed, seed, length), examples, length, seed, source), questions)


def training_ids(model: Model, source: str, examples: int, length: int | None = None, seed: int = 0) -> np.ndarray:
    """Ids ``[examples, T]`` of text that ``read_prompts`` never gives: the other half of the documents, or training questions."""
    length = length or min(LENGTH, model.spec.max_position_embeddings)
    parsed = parse_source(source)
    parsed.check()
    texts = _worked(parsed, seed + LENS, length) if isinstance(parsed, Primitives) else _documents(parsed, 1)
    return _take(model, texts, examples, length, seed, source)


def _fitting(model: Model, source: Primitives, count: int, shots: int | None, seed: int) -> tuple[Question, ...]:
    """Questions, the source's tasks in turn."""
    for number in range(SHOTS, -1, -1) if shots is None else (shots,):
        by_task = [few_shot(find(name), seed, -(-count // len(source.names)), number) for name in source.names]
        questions = tuple(islice(chain.from_iterable(zip(*by_task, strict=True)), count))
        longest = max(len(model.tokenizer.encode_known(each.whole(i))) for each in questions for i in range(len(each.options)))
        if longest <= model.spec.max_position_embeddings:
            return questions
    with_them = f" with {number} worked examples" if number else ""
    raise UsageError(
        f"a question of {source}{with_them} has {longest} tokens, the model {model.spec.max_position_embeddings} positions;"
        f" {'lower --shots' if number else 'choose other --data'}"
    )


def _documents(source: Text, half: int) -> Iterator[str]:
    return islice(source.documents(), half, None, 2)


def _worked(source: Primitives, seed: int, length: int) -> Iterator[str]:
    """Endless texts of worked questions, one task each in turn, long enough for ``length`` tokens."""
    for number in count():
        for name in source.names:
            found: list[str] = []
            while sum(map(len, found)) < LONGEST * length:
                found += training_text(find(name), seed, (number + len(found) * APART) * BLOCK, BLOCK)
            yield JOIN.join(found)


def _take(model: Model, texts: Iterator[str], count: int, length: int, seed: int, source: str) -> np.ndarray:
    """The first tokens of ``count`` texts that are long enough, out of the first few times as many."""
    if count < 1:
        raise UsageError(f"{count} texts of {source} are too few; ask for 1 or more")
    pool: list[list[int]] = []
    for text in texts:
        ids = model.tokenizer.encode(text[: LONGEST * length])
        if len(ids) >= length:
            pool.append(ids[:length])
        if len(pool) >= count * POOL:
            break
    if len(pool) < count:
        raise UsageError(f"{source} has {len(pool)} texts of {length} tokens, {count} are wanted; lower --examples or --length")
    return np.array(pool)[np.sort(np.random.default_rng(seed).permutation(len(pool))[:count])]
