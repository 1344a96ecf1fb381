"""Endless rows of generated questions, made as arrays: no Python loop over questions where the tokenizer allows it.

A row holds questions of one task, some to a document (the form of a prompt of worked examples and its question), and ends where it is
full. Row k draws its questions by number from a range that is its own, so any row is had without the others.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from loopkit.data.counter import Ints
from loopkit.data.packing import Mask
from loopkit.data.tasks import Split, Task, draw
from loopkit.data.tasks.task import ANSWER, JOIN, Instances
from loopkit.data.tokenizers import Codec, Ids

PER_ROW = 1 << 20  # question numbers set aside for each row


@dataclass(frozen=True)
class Asked:
    """Which questions fill rows of ``length`` tokens, ``per_document`` to each end of text; ``answers`` marks only answers as targets."""

    task: Task
    codec: Codec
    length: int
    seed: int
    split: Split = "train"
    answers: bool = False
    per_document: int = 6

    def of_rows(self, numbers: Ints, count: int) -> Instances:
        """The first ``count`` questions of each row."""
        return draw(self.task, self.split, self.seed, (numbers[:, None] * PER_ROW + np.arange(count)).reshape(-1))

    @property
    def sample(self) -> Instances:
        """A few, to see how long they are."""
        return self.of_rows(np.zeros(1, np.int64), 16)


@dataclass(frozen=True)
class TaskRows:
    """Rows of one task by the ids of its pieces."""

    asked: Asked

    def rows(self, numbers: Ints) -> tuple[Ids, Mask | None]:
        """Rows by number: ids ``[n, T + 1]`` and the answers' mask."""
        count = self._enough
        while True:
            grid, is_answer = self._grid(self.asked.of_rows(numbers, count))
            found = _cut(self._table, grid.reshape(len(numbers), -1), is_answer, count, self.asked)
            if found is not None:
                return found[0], found[1] if self.asked.answers else None
            count *= 2

    def _grid(self, drawn: Instances) -> tuple[Ints, Mask]:
        return _grid(len(self.asked.task.pieces), drawn.prompt, drawn.answers)

    @cached_property
    def _enough(self) -> int:
        """Questions that most likely fill a row."""
        shortest = self._table.lengths[self._grid(self.asked.sample)[0]].sum(axis=1).min()
        return int(self.asked.length // max(1, shortest)) + 2

    @cached_property
    def _table(self) -> "PieceTable":
        return piece_table(self.asked.codec, self.asked.task.pieces)


@dataclass(frozen=True)
class PieceTable:
    """The ids of each piece, end to end: piece p is ``flat[starts[p]:starts[p] + lengths[p]]``."""

    flat: Ids
    starts: Ints
    lengths: Ints

    def expand(self, pieces: Ints) -> tuple[Ids, Ints]:
        """The ids of pieces one after the other, and how many each gave."""
        lengths = self.lengths[pieces]
        ends = np.cumsum(lengths)
        shift = np.repeat(self.starts[pieces] - ends + lengths, lengths)
        return self.flat[shift + np.arange(len(shift))], lengths


def piece_table(codec: Codec, pieces: tuple[str, ...]) -> PieceTable:
    """Ids of a task's pieces, then of the space before an answer, the gap between questions and the end of text."""
    ids = [*codec.encode([*pieces, ANSWER, JOIN]), np.array([codec.end_id], np.int32)]
    lengths = np.array([len(each) for each in ids])
    return PieceTable(np.concatenate(ids).astype(np.int32), np.cumsum(lengths) - lengths, lengths)


def _grid(pieces: int, prompt: Ints, answer: Ints) -> tuple[Ints, Mask]:
    """Piece numbers of whole questions ``[n, columns]``, each after a gap or the end of text, and which columns answer."""
    space, gap = pieces, pieces + 1
    n = len(prompt)
    lead = np.full((n, 1), gap)
    grid = np.concatenate([lead, prompt, np.full((n, 1), space), answer], axis=1)
    return grid, np.arange(grid.shape[1]) > prompt.shape[1]


def _cut(table: PieceTable, grid: Ints, is_answer: Mask, count: int, asked: Asked) -> tuple[Ids, Mask] | None:
    """The first ``length + 1`` ids of each row of pieces, and whether each is an answer's; None where one is too short."""
    columns, length = len(is_answer), asked.length
    grid[:, :: columns * asked.per_document] = len(table.lengths) - 1  # documents begin with the end of the one before
    ids, lengths = table.expand(grid.reshape(-1))
    totals = lengths.reshape(len(grid), -1).sum(axis=1)
    if totals.min() <= length:
        return None
    where = (np.cumsum(totals) - totals)[:, None] + np.arange(length + 1)
    return ids[where], np.repeat(np.tile(is_answer, len(grid) * count), lengths)[where]
