"""The words that a word-level vocabulary is made of."""

import re
from collections import Counter
from collections.abc import Iterable

from loopkit.data.tasks import Task
from loopkit.data.tasks.task import ANSWER, JOIN
from loopkit.data.tokenizers import WORD


def closed_words(tasks: Iterable[Task]) -> set[str]:
    """Every word that questions of these tasks can hold."""
    pieces = {piece for task in tasks for piece in (*task.pieces, ANSWER, JOIN)}
    return {word for piece in pieces for word in re.findall(WORD, piece)}


def common_words(texts: Iterable[str], size: int) -> set[str]:
    """The ``size`` commonest words of the texts, of equally common ones the first by spelling."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(re.findall(WORD, text))
    return set(sorted(counts, key=lambda word: (-counts[word], word))[:size])
