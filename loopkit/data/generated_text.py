"""Rows of generated questions for tokenizers whose ids of a text are not those of its parts: text first, then ids."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loopkit.data.counter import Ints
from loopkit.data.generated import Asked
from loopkit.data.packing import Mask
from loopkit.data.tasks.task import ANSWER, JOIN, texts
from loopkit.data.tokenizers import Ids


@dataclass(frozen=True)
class TextTaskRows:
    """The rows of ``TaskRows``, for BPE and checkpoints' own tokenizers."""

    asked: Asked

    def rows(self, numbers: Ints) -> tuple[Ids, Mask | None]:
        """Rows by number: ids ``[n, T + 1]`` and the answers' mask."""
        count = self._enough
        while True:
            ids, masks = self._encode(numbers, count)
            if min(map(len, ids)) > self.asked.length:
                stacked = np.stack([each[: self.asked.length + 1] for each in ids])
                return stacked, np.stack([each[: self.asked.length + 1] for each in masks]) if self.asked.answers else None
            count += self.asked.per_document

    def _encode(self, numbers: Ints, count: int) -> tuple[list[Ids], list[Mask]]:
        """Ids and answer masks of ``count`` questions a row."""
        drawn = self.asked.of_rows(numbers, count)
        pairs = list(zip(texts(self.asked.task, drawn.prompt), texts(self.asked.task, drawn.answers), strict=True))
        size = self.asked.per_document
        documents = [pairs[i : i + size] for i in range(0, len(pairs), size)]
        written = [JOIN.join(prompt + ANSWER + answer for prompt, answer in document) for document in documents]
        end = np.array([self.asked.codec.end_id], np.int32)
        if self.asked.answers:
            encoded = self.asked.codec.encode_spans(written)
            marks = [np.append(False, _answer_characters(each)[ends - 1]) for each, (_, ends) in zip(documents, encoded, strict=True)]
            rows = [np.append(end, ids) for ids, _ in encoded]
        else:
            rows = [np.append(end, ids) for ids in self.asked.codec.encode(written)]
            marks = []
        per_row = len(rows) // len(numbers)
        return _join(rows, per_row), _join(marks, per_row)

    @cached_property
    def _enough(self) -> int:
        """Questions that most likely fill a row, whole documents."""
        prompts = texts(self.asked.task, self.asked.sample.prompt)
        shortest = min(len(ids) for ids in self.asked.codec.encode(prompts))
        size = self.asked.per_document
        return -(-(self.asked.length // max(1, shortest) + 1) // size) * size


def _answer_characters(document: list[tuple[str, str]]) -> Mask:
    """Which characters of a document belong to answers, the space before them included."""
    parts = [np.repeat([False, True, False], [len(prompt), len(ANSWER + answer), len(JOIN)]) for prompt, answer in document]
    return np.concatenate(parts)


def _join(parts: list[NDArray[Any]], per_row: int) -> list[NDArray[Any]]:
    return [np.concatenate(parts[i : i + per_row]) for i in range(0, len(parts), per_row)]
