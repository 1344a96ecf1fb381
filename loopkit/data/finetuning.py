"""Rows for supervised fine-tuning: whole questions, loss on the answers only."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loopkit.data.counter import Ints, permute, subkeys
from loopkit.data.packing import Mask
from loopkit.data.tasks.task import ANSWER, Question
from loopkit.data.tokenizers import Codec, Ids
from loopkit.errors import UsageError


@dataclass(frozen=True)
class PairRows:
    """Examples side by side in a row as many as always fit, the rest of it end-of-text that no loss counts.

    Each example is ``[end of text, prompt, answer]`` and an end of text that counts with the answer. An epoch takes every
    example once, in an order of its own. ``ids`` and ``mask`` are ``[examples, longest + 1]``, filled up with end-of-text.
    """

    ids: Ids
    mask: Mask
    lengths: Ints
    length: int
    stream: np.uint64
    end_id: int

    def rows(self, numbers: Ints) -> tuple[Ids, Mask | None]:
        """Rows by number: ids ``[n, T + 1]`` and the answers' mask."""
        per_row = min(self.length // (self.ids.shape[1] - 1), len(self.ids))
        slots = numbers[:, None] * per_row + np.arange(per_row)
        epochs, positions = np.divmod(slots.reshape(-1), len(self.ids))
        chosen = permute(subkeys(self.stream, epochs), len(self.ids), positions).reshape(slots.shape)
        ids = np.full((len(numbers), self.length + 1), self.end_id, np.int32)
        mask = np.zeros(ids.shape, np.bool_)
        at = np.zeros(len(numbers), np.int64)
        for column in chosen.T:
            where = at[:, None] + np.arange(self.ids.shape[1])
            np.put_along_axis(ids, where, self.ids[column], axis=1)
            mask[np.arange(len(mask))[:, None], where] |= self.mask[column]
            at += self.lengths[column]
        return ids, mask


def pair_rows(pairs: Sequence[tuple[str, str]] | Sequence[Question], codec: Codec, length: int, stream: np.uint64) -> PairRows:
    """Rows of prompts and answers, or of questions. Raises UsageError where an example is longer than a row, or there is none."""
    if not pairs:
        raise UsageError("fine-tuning needs at least one example")
    examples = [_encode(_pair(each), codec) for each in pairs]
    longest = max(len(ids) for ids, _ in examples)
    if longest > length:
        raise UsageError(f"an example has {longest} tokens, a row {length}; raise the sequence length or shorten the prompts")
    ids = np.full((len(examples), longest + 1), codec.end_id, np.int32)
    mask = np.zeros(ids.shape, np.bool_)
    for i, (tokens, start) in enumerate(examples):
        ids[i, : len(tokens)] = tokens
        mask[i, start : len(tokens) + 1] = True
    lengths = np.array([len(tokens) for tokens, _ in examples])
    return PairRows(ids, mask, lengths, length, stream, codec.end_id)


def _pair(example: tuple[str, str] | Question) -> tuple[str, str]:
    if isinstance(example, Question):
        return example.prompt, ANSWER + example.options[example.answer]
    return example


def _encode(pair: tuple[str, str], codec: Codec) -> tuple[Ids, int]:
    """End of text, prompt, answer, encoded as one text; and the first position of the answer."""
    text = "".join(pair)
    if codec.kind == "byte":
        ids, start = codec.encode([text])[0], len(pair[0].encode())
    else:
        ids, ends = codec.encode_spans([text])[0]
        start = int(np.searchsorted(ends, len(pair[0]), "right"))  # a token that reaches over the prompt's end is the answer's
    return np.append(np.int32(codec.end_id), ids).astype(np.int32), start + 1
